// Go's net/http as a client, for the bench: the same lines in and out as bench/worker.py and bench/probe.py.
//
//	load worker TASK
//	load probe TASK
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const patience = 30 * time.Second

type task struct {
	Scenario struct {
		Size    int
		Threads int
		Hosts   int
		Batch   int
		Timed   bool
		Fresh   bool
		H2      bool
	}
	URL    string
	CA     string
	Warmup float64
}

func say(message any) {
	line, err := json.Marshal(message)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	say(map[string]string{"error": err.Error()})
	os.Exit(0)
}

// One client, shared by all goroutines, that keeps a connection for each of them.
func newClient(t *task) (*http.Client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: t.Scenario.Threads, DisableKeepAlives: t.Scenario.Fresh, DisableCompression: true,
		ForceAttemptHTTP2: t.Scenario.H2}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return &http.Client{Transport: transport}, nil
}

func fetch(client *http.Client, url string, size int) ([]byte, error) {
	response, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	// The body as one piece of memory, as the others give it; of known size where the server says it.
	var body []byte
	if response.ContentLength >= 0 {
		body = make([]byte, response.ContentLength)
		if _, err = io.ReadFull(response.Body, body); err != nil {
			return nil, err
		}
		// The connection is free again only when the end has been seen.
		if _, err = response.Body.Read(make([]byte, 1)); err != io.EOF {
			return nil, errors.New("a body beyond its length")
		}
	} else if body, err = io.ReadAll(response.Body); err != nil {
		return nil, err
	}
	if len(body) != size {
		return nil, errors.New("a body of another length")
	}
	return body, nil
}

func content(size int) []byte {
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(i)
	}
	return body
}

func processor() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}

type sample struct {
	Requests    int                `json:"requests"`
	Seconds     float64            `json:"seconds"`
	CPU         float64            `json:"cpu_seconds"`
	Median      *float64           `json:"median_ms"`
	Percentiles map[string]float64 `json:"percentiles_ms"`
}

func round(client *http.Client, t *task, seconds float64) (*sample, error) {
	threads := t.Scenario.Threads
	counts, times, errs := make([]int, threads), make([][]float64, threads), make([]error, threads)
	var done sync.WaitGroup
	cpu, began := processor(), time.Now()
	end := began.Add(time.Duration(seconds * 1e9))
	for i := 0; i < threads; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			for now := time.Now(); now.Before(end); {
				for j := 0; j < t.Scenario.Batch; j++ {
					if _, errs[i] = fetch(client, t.URL, t.Scenario.Size); errs[i] != nil {
						return
					}
				}
				then := time.Now()
				if t.Scenario.Timed {
					times[i] = append(times[i], then.Sub(now).Seconds()*1000)
				}
				counts[i] += t.Scenario.Batch
				now = then
			}
		}()
	}
	done.Wait()
	s := &sample{Seconds: time.Since(began).Seconds(), CPU: processor() - cpu}
	var all []float64
	for i := range counts {
		if errs[i] != nil {
			return nil, errs[i]
		}
		s.Requests += counts[i]
		all = append(all, times[i]...)
	}
	if len(all) > 0 {
		sort.Float64s(all)
		s.Percentiles = map[string]float64{}
		for _, p := range []float64{50, 75, 90, 95, 99, 99.9, 100} {
			s.Percentiles[strconv.FormatFloat(p, 'g', -1, 64)] = all[max(0, int(math.Ceil(p*float64(len(all))/100-1e-6))-1)]
		}
		median := s.Percentiles["50"]
		s.Median = &median
	}
	return s, nil
}

func worker(t *task) error {
	client, err := newClient(t)
	if err != nil {
		return err
	}
	client.Timeout = patience
	body, err := fetch(client, t.URL, t.Scenario.Size)
	if err != nil {
		return err
	}
	if !bytes.Equal(body, content(t.Scenario.Size)) {
		return errors.New("the body is not what the server has")
	}
	if _, err = round(client, t, t.Warmup); err != nil {
		return err
	}
	client.Timeout = 0
	say(map[string]string{"version": strings.TrimPrefix(runtime.Version(), "go")})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		seconds, err := strconv.ParseFloat(lines.Text(), 64)
		if err != nil {
			return err
		}
		s, err := round(client, t, seconds)
		if err != nil {
			return err
		}
		say(s)
	}
	return lines.Err()
}

type order struct {
	Do      string
	Times   int
	Hosts   int
	Seconds float64
	Path    string
	URL     string
	Size    int
	Threads int
	Each    int
}

// The i-th of the addresses from 127.0.0.1 on.
func origin(url string, i int) string {
	return strings.Replace(url, "127.0.0.1", fmt.Sprintf("127.%d.%d.%d", i/62500, i/250%250, i%250+1), 1)
}

func probe(t *task) error {
	client, err := newClient(t)
	if err != nil {
		return err
	}
	say(map[string]string{"version": strings.TrimPrefix(runtime.Version(), "go")})
	held := 0
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return err
		}
		answer := map[string]float64{}
		began := time.Now()
		switch o.Do {
		case "gets":
			for i := 0; i < o.Times; i++ {
				if _, err := fetch(client, t.URL, t.Scenario.Size); err != nil {
					return err
				}
			}
			answer["seconds"] = time.Since(began).Seconds()
		case "warm":
			for i := 0; i < o.Times; i++ {
				if _, err := fetch(client, o.URL, o.Size); err != nil {
					return err
				}
			}
		case "hold":
			for ; held < o.Hosts && time.Since(began).Seconds() < o.Seconds; held++ {
				if _, err := fetch(client, origin(t.URL, held), t.Scenario.Size); err != nil {
					return err
				}
			}
			answer["held"] = float64(held)
		case "cost":
			var times []float64
			cpu, url := processor(), origin(t.URL, held/2)
			for len(times) == 0 || time.Since(began).Seconds() < o.Seconds {
				batch := time.Now()
				for i := 0; i < 10; i++ {
					if _, err := fetch(client, url, t.Scenario.Size); err != nil {
						return err
					}
				}
				times = append(times, time.Since(batch).Seconds()/10)
			}
			answer["cpu_us"] = (processor() - cpu) / float64(len(times)) / 10 * 1e6
			sort.Float64s(times)
			answer["us"] = times[len(times)/2] * 1e6
		case "upload":
			if answer["seconds"], err = upload(client, t.URL, o.Path); err != nil {
				return err
			}
		case "spike":
			if err := spike(t, &o, answer); err != nil {
				return err
			}
		default:
			return errors.New("cannot " + o.Do)
		}
		say(answer)
	}
	return lines.Err()
}

func upload(client *http.Client, where, path string) (float64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	request, err := http.NewRequest("POST", where, file)
	if err != nil {
		return 0, err
	}
	request.ContentLength = info.Size()
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if string(body) != strconv.FormatInt(info.Size(), 10) {
		return 0, errors.New("the server did not get as many bytes as the file has")
	}
	return time.Since(began).Seconds(), nil
}

func spike(t *task, o *order, answer map[string]float64) error {
	client, err := newClient(t)
	if err != nil {
		return err
	}
	client.Timeout = patience
	firsts, errs := make([]float64, o.Threads), make([]error, o.Threads)
	var done sync.WaitGroup
	gate := make(chan struct{})
	var began time.Time
	for i := 0; i < o.Threads; i++ {
		done.Add(1)
		go func() {
			defer done.Done()
			<-gate
			for n := 0; n < o.Each; n++ {
				if _, errs[i] = fetch(client, t.URL, t.Scenario.Size); errs[i] != nil {
					return
				}
				if n == 0 {
					firsts[i] = time.Since(began).Seconds() * 1000
				}
			}
		}()
	}
	began = time.Now()
	close(gate)
	done.Wait()
	answer["last_ms"] = time.Since(began).Seconds() * 1000
	if err := errors.Join(errs...); err != nil {
		return err
	}
	sort.Float64s(firsts)
	answer["first_ms"] = firsts[len(firsts)/2]
	client.CloseIdleConnections()
	return nil
}

func main() {
	var t task
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: load worker|probe TASK")
		os.Exit(2)
	}
	if err := json.Unmarshal([]byte(os.Args[2]), &t); err != nil {
		fail(err)
	}
	run := map[string]func(*task) error{"worker": worker, "probe": probe}[os.Args[1]]
	if run == nil {
		fail(errors.New("no such part: " + os.Args[1]))
	}
	if err := run(&t); err != nil {
		fail(err)
	}
}
