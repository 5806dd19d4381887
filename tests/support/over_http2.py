"""A run over HTTP/2 (`pytest --http2`): transports speak it unless a test says otherwise, the scripted servers do by `front`.

What is of HTTP/1.1 itself is left out, by name and with the reason; everything else must hold.
"""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledhttp import Transport, features
from tests.support import front

# Where the client's own suite is. The rest is of HTTP/1.1's parser and writer, of parts below, or of tools; real servers have `interop/test_h2`.
SUITE = ("adapters", "api", "attack", "deadlines", "examples", "exchange", "metrics")

BYTES = "HTTP/1.1's own bytes: framing, the case of names, the version's name"
COUNTS = "counts connections: HTTP/2 resets a stream where HTTP/1.1 must close, and shares where that waits or dials"
RAW = "looks at a connection's socket, at how it ends, or at when a byte comes: the front's here, which passes on whole heads, and buffers"

LEFT_OUT: dict[str, dict[str, str]] = {
    BYTES: {
        "adapters/test_requests.py": """
            test_the_head_as_requests_prepared_it test_the_head_as_the_server_sent_it test_a_chunked_body_as_it_arrives
        """,
        "adapters/test_requests_errors.py": "test_what_servers_do_wrong",
        "api/test_pickles.py": "test_a_response_from_the_wire test_trailers_and_streams",
        "api/test_response.py": "test_what_a_response_knows_of_its_exchange",
        "exchange/test_bad_input.py": "*",
        "exchange/test_forms.py": """
            test_a_small_form_travels_with_its_head test_trailers_come_behind_the_last_chunk test_trailers_that_cannot_be_sent
        """,
        "exchange/test_framing.py": "*",
        "exchange/test_header_tables.py": "*",
        "exchange/test_logging.py": "test_a_dial_and_a_close",
        "exchange/test_trace.py": "test_interim_responses",
        "exchange/test_uploads.py": """
            test_a_request_whose_head_fills_the_buffer test_a_wrong_declared_length_never_frames_a_request
            test_iterables_are_sent_chunked_piece_by_piece test_the_head_and_a_small_body_travel_in_one_packet
            test_the_own_close_of_a_request_is_kept
        """,
        "metrics/test_opentelemetry.py": "test_a_span test_duration",
    },
    COUNTS: {
        "adapters/test_requests.py": "test_a_response_that_nobody_reads_frees_its_connection",
        "adapters/test_requests_errors.py": "test_what_a_body_raises",
        "api/test_auth_flow.py": "test_one_connection",
        "api/test_fanout.py": "test_streams_that_nobody_sees_are_closed",
        "api/test_redirects.py": "test_bodies_of_redirects test_a_stalled_body_of_a_redirect_does_not_pass_the_deadline",
        "attack/test_drains.py": "test_nothing_is_read_where_the_connection_could_not_serve_again",
        "attack/test_odd_answers.py": "test_a_flow_that_yields_no_request_keeps_no_connection",
        "deadlines/test_contexts.py": "test_a_cancel[pool test_a_deadline",
        "deadlines/test_phases.py": "test_stall[pool",
        "deadlines/test_forms.py": "test_deadlines_of_threads_do_not_mix",
        "deadlines/test_reuse.py": """
            test_a_deadline_closes_only_its_own_connection test_a_pool_timeout_names_who_holds_without_secrets
            test_total_counts_on_over_a_stale_retry test_who_got_a_stale_connection_keeps_the_turn test_who_leaves_the_queue_leaves_its_order
        """,
        "exchange/test_dialing.py": """
            test_a_connection_given_back_beats_the_dial test_a_handler_that_raises_while_a_dial_is_handed_to_a_helper
            test_losers_whose_filter_raises_take_no_helper_with_them test_only_so_many_losers_are_finished
        """,
        "exchange/test_drain.py": "*",
        "exchange/test_duplex.py": """
            test_a_refusal_that_is_read_as_a_stream test_a_refusal_while_we_send_is_the_answer test_a_response_is_closed_while_its_upload_goes_on
            test_an_early_answer_that_is_no_refusal_lets_both_directions_finish test_an_early_answer_with_a_large_head
        """,
        "exchange/test_expect.py": """
            test_417_brings_the_request_again_without_it test_a_body_that_fails_after_it_was_asked_for test_a_cancel_while_it_is_waited
            test_a_deadline_while_it_is_waited test_an_answer_instead_keeps_the_body_here test_signals_while_it_is_waited
        """,
        "exchange/test_files.py": """
            test_a_file_that_shrinks test_a_server_that_stops_reading_a_file test_the_answer_is_read_while_the_file_is_sent
        """,
        "exchange/test_fork.py": "test_a_child_works_at_once_and_the_parent_goes_on",
        "exchange/test_fork_busy.py": """
            test_a_child_that_python_knows_nothing_of_is_seen test_any_lock_may_be_held_by_another_thread
            test_not_a_byte_on_the_parents_tls_connections
        """,
        "exchange/test_forms.py": "test_a_file_of_a_form_that_shrinks",
        "exchange/test_leaks.py": """
            test_a_body_that_was_read_is_no_leak test_a_collected_response_gives_its_slot_back_and_says_so
            test_a_response_in_a_cycle_wakes_who_waits test_who_waits_gets_on_at_once
        """,
        "exchange/test_pool_end_to_end.py": """
            test_a_cancel_wherever_it_comes test_a_connection_given_back_beats_a_stalled_handshake test_a_failed_dial_takes_what_came_free
            test_a_lost_dial_that_fails_is_counted test_a_slot_comes_free_however_a_request_ends test_close_while_requests_are_in_flight
            test_waiters_are_served_in_their_order
        """,
        "exchange/test_proxies.py": "test_a_dial_that_lost_its_race_is_finished test_thirty_two_threads",
        "exchange/test_spike.py": "*",
        "exchange/test_stale.py": """
            test_a_one_shot_body_that_was_not_begun_is_sent test_all_of_several_stale_ones_are_passed_over test_the_first_that_lives_serves
        """,
        "exchange/test_streams.py": """
            test_a_failed_read_stays_failed test_a_signals_exception_in_a_read_does_not_look_like_the_bodys_end
            test_an_unread_body_is_named_by_who_waits_for_its_connection test_another_thread_closes_while_one_reads
            test_closed_early_where_much_is_to_come test_closed_early_where_the_rest_never_comes
        """,
        "exchange/test_trace.py": """
            test_417_makes_it_begin_again test_a_body_that_fails test_a_cancel test_a_class_makes_an_object_for_each_exchange
            test_a_connection_found_dead_was_never_got test_a_dial_left_behind test_a_response_collected_unclosed test_a_stream_closed_early
            test_a_stream_drained_in_the_background test_a_timeout test_an_early_answer_ends_the_upload
            test_an_interrupt_within_a_hook_ends_the_request_and_leaks_nothing test_thirty_two_threads
        """,
        "exchange/test_uploads.py": """
            test_a_generator_that_makes_requests_itself test_a_generator_that_raises test_a_piece_that_is_not_bytes
            test_a_server_that_stops_reading test_nothing_can_be_written
        """,
        "metrics/test_opentelemetry.py": "test_open_connections",
    },
    RAW: {
        "adapters/test_requests_tls.py": "test_client_certificates",
        "deadlines/test_contexts.py": "test_a_cancel[silent-handshake test_a_cancel[half-handshake",
        "deadlines/test_flow.py": """
            test_a_dribbled_head_is_no_silence test_a_dribbled_record_is_no_silence test_an_answered_upload_still_has_its_limits
        """,
        "deadlines/test_phases.py": """
            test_stall[silent-handshake test_stall[half-handshake test_stall[folded-head test_stall[tls-folded-head test_stall[send-pieces-write
            test_stall[send-map-write test_stall[tls-send-pieces-write test_stall[tls-send-map-write
        """,
        "exchange/test_dialing.py": "test_where_it_connects_from",
        "exchange/test_duplex.py": "test_a_reset_after_the_upload test_a_reset_while_we_send test_a_server_that_answers_and_stops_reading",
        "exchange/test_leaks.py": "test_collected_at_any_moment",
        "exchange/test_pool_end_to_end.py": "test_idle_connections_end_by_themselves",
        "exchange/test_proxies.py": "test_a_certificate_and_a_pin_are_for_the_server test_bytes_behind_a_socks_answer_are_the_origins",
        "exchange/test_stale.py": """
            test_a_fresh_connection_is_tried_once test_after_the_first_byte_of_the_answer test_after_the_request_was_written
            test_before_anything_was_written test_dead_before_the_probe
        """,
    },
}


def begin() -> None:
    if not features()["http2"]:
        raise pytest.UsageError("--http2: this build has no HTTP/2 (libnghttp2 was not there)")
    front.ON = True
    assert Transport.__init__.__kwdefaults__ is not None
    Transport.__init__.__kwdefaults__["http2"] = "prior-knowledge"


def left_out() -> Iterator[tuple[str, str, str]]:
    """(file, test, reason)."""
    for reason, files in LEFT_OUT.items():
        for file, tests in files.items():
            for test in tests.split():         # NAME, NAME[BEGIN, or * for all
                yield file, test, reason


def choose(items: list[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """What is run, and what is left out."""
    out = {(file, test) for file, test, _ in left_out()}
    run: list[pytest.Item] = []
    rest: list[pytest.Item] = []
    for item in items:
        where = "/".join(item.path.parts[-2:])
        test = item.name.partition("[")[0]
        fits = item.path.parts[-2] in SUITE and not {(where, test), (where, "*")} & out and not any(
            item.name.startswith(start) for file, start in out if file == where and "[" in start)
        (run if fits else rest).append(item)
    return run, rest
