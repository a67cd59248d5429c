package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type result struct {
	events    int
	bytes     int64
	completed bool
	problem   string
	first     time.Duration
	latencies []int64
}

type report struct {
	Streams       int            `json:"streams"`
	Completed     int            `json:"completed"`
	Events        int            `json:"events"`
	Expected      int            `json:"expected"`
	Bytes         int64          `json:"bytes"`
	Seconds       float64        `json:"seconds"`
	EventsPerSec  float64        `json:"events_per_second"`
	LatencyMs     map[string]any `json:"latency_ms"`
	FirstMs       map[string]any `json:"first_event_ms"`
	Problems      map[string]int `json:"problems"`
	OwnCPUSeconds float64        `json:"own_cpu_seconds"`
}

func load(args []string) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	streams := flags.Int("streams", 100, "streams at once")
	events := flags.Int("events", 100, "events of each stream")
	pace := flags.Float64("pace", 0, "events per second of each stream; 0: a burst")
	size := flags.Int("size", 24, "bytes of content of each event")
	rounds := flags.Int("rounds", 1, "streams that each client takes, one after the other")
	flags.Parse(args)

	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: *streams,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableCompression:  true,
	}}
	model := fmt.Sprintf("bench:events=%d,pace=%g,size=%d", *events, *pace, *size)
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"go"}]}`, model)

	results := make([]result, *streams**rounds)
	var waiting sync.WaitGroup
	start := time.Now()
	for i := 0; i < *streams; i++ {
		waiting.Add(1)
		go func(i int) {
			defer waiting.Done()
			if *pace > 0 {
				// Not all at once: paced streams are spread over one period, as they are in life.
				time.Sleep(time.Duration(float64(i) / float64(*streams) / *pace * float64(time.Second)))
			}
			for round := 0; round < *rounds; round++ {
				results[i**rounds+round] = one(client, *url, body, *events)
			}
		}(i)
	}
	waiting.Wait()
	seconds := time.Since(start).Seconds()

	total := report{Streams: len(results), Seconds: seconds, Expected: len(results) * *events, Problems: map[string]int{}}
	var latencies, firsts []float64
	for _, r := range results {
		total.Events += r.events
		total.Bytes += r.bytes
		if r.completed {
			total.Completed++
		}
		if r.problem != "" {
			total.Problems[r.problem]++
		}
		if r.first > 0 {
			firsts = append(firsts, float64(r.first)/1e6)
		}
		for _, l := range r.latencies {
			latencies = append(latencies, float64(l)/1e6)
		}
	}
	total.EventsPerSec = float64(total.Events) / seconds
	total.LatencyMs = quantiles(latencies)
	total.FirstMs = quantiles(firsts)
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	total.OwnCPUSeconds = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	json.NewEncoder(os.Stdout).Encode(total)
}

// one takes one stream and checks that every event is there, whole and in order.
func one(client *http.Client, url, body string, events int) (r result) {
	began := time.Now()
	response, err := client.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		r.problem = "connect: " + errorKind(err)
		return
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		r.problem = fmt.Sprintf("status %d", response.StatusCode)
		return
	}
	reader := bufio.NewReaderSize(response.Body, 32*1024)
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			if r.problem == "" {
				r.problem = "broke off: " + errorKind(err)
			}
			return
		}
		r.bytes += int64(len(line))
		if !bytes.HasPrefix(line, []byte("data: ")) {
			continue
		}
		if bytes.HasPrefix(line, []byte("data: [DONE]")) {
			if r.events != events {
				r.problem = "events missing"
				return
			}
			r.completed = true
			return
		}
		number, sent, ok := stamp(line)
		if !ok {
			continue // a role, finish or usage chunk that a peer adds
		}
		if number != r.events {
			r.problem = "out of order"
			return
		}
		now := time.Now()
		if r.events == 0 {
			r.first = now.Sub(began)
		}
		r.events++
		r.latencies = append(r.latencies, now.UnixNano()-sent)
	}
}

var content = []byte(`"content":"`)

// stamp finds the number and the time in an event's content.
func stamp(line []byte) (number int, sent int64, ok bool) {
	i := bytes.Index(line, content)
	if i < 0 {
		return
	}
	rest := line[i+len(content):]
	at, space := bytes.IndexByte(rest, '@'), bytes.IndexByte(rest, ' ')
	if at < 0 || space < at {
		return
	}
	number, err := strconv.Atoi(string(rest[:at]))
	if err != nil {
		return
	}
	sent, err = strconv.ParseInt(string(rest[at+1:space]), 10, 64)
	return number, sent, err == nil
}

func quantiles(values []float64) map[string]any {
	if len(values) == 0 {
		return nil
	}
	sort.Float64s(values)
	at := func(q float64) float64 { return values[int(q*float64(len(values)-1))] }
	return map[string]any{"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
}

func errorKind(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
