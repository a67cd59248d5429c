package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// What one client saw of its stream.
type result struct {
	completed bool
	problem   string
	exact     int // events that came as they were sent, byte by byte
	bytes     int64
	first     time.Duration // from asking to the first event
	arrivals  []int64       // wall clock, nanoseconds, of each event
	latencies []int64       // nanoseconds since the upstream made it, of the events made while all streams are open
}

func load(args []string) {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	url := flags.String("url", "", "where to post chat completions")
	streams := flags.Int("streams", 100, "streams at once")
	events := flags.Int("events", 100, "events of each stream")
	pace := flags.Float64("pace", 0, "events per second of each stream; 0: a burst")
	size := flags.Int("size", 24, "bytes of content of each event")
	opening := flags.Float64("opening", 0, "seconds over which the streams are opened")
	deadline := flags.Float64("deadline", 60, "seconds after which what is missing counts as missing")
	whole := flags.Bool("whole", false, "read each answer to its very end, and use its connection again")
	flags.Parse(args)

	client := newClient(*streams)
	body := request(*events, *pace, *size, 0)
	cut, cancel := context.WithTimeout(context.Background(), time.Duration(*deadline*float64(time.Second)))
	defer cancel()

	results := make([]result, *streams)
	var waiting sync.WaitGroup
	start := time.Now()
	all := throughout
	if *opening > 0 && *pace > 0 && !*whole {
		all = during{after(start, *opening), after(start, float64(*events) / *pace)}
	}
	for i := 0; i < *streams; i++ {
		waiting.Add(1)
		// Not all at once: streams are spread over the opening, as they are in life.
		at := spread(i, *opening/float64(*streams))
		go func(i int) {
			defer waiting.Done()
			time.Sleep(at)
			results[i] = one(cut, client, *url, body, *events, all, *whole)
		}(i)
	}
	waiting.Wait()
	json.NewEncoder(os.Stdout).Encode(summary(results, start, *streams**events))
}

var moments = rand.New(rand.NewSource(1))

// spread is when the i-th of some comes of which one is due `every` seconds: at any moment of that time, the same one in each
// run. At equal distances, which fall in step with the pace of the streams, twenty events would come at once and then none.
// It is for one goroutine.
func spread(i int, every float64) time.Duration {
	return time.Duration((float64(i) + moments.Float64()) * every * float64(time.Second))
}

// during is a time, in nanoseconds of the wall clock.
type during struct{ from, to int64 }

var throughout = during{0, math.MaxInt64}

func after(start time.Time, seconds float64) int64 {
	return start.Add(time.Duration(seconds * float64(time.Second))).UnixNano()
}

func newClient(streams int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: streams,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		DisableCompression:  true,
	}}
}

// request is the body that asks the upstream for such a stream.
func request(events int, pace float64, size int, id int) string {
	// Not commas: some proxies take them for a list of models.
	model := fmt.Sprintf("bench:events=%d;pace=%g;size=%d;id=%d", events, pace, size, id)
	return fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"go"}]}`, model)
}

func post(cut context.Context, client *http.Client, url, body string) (*http.Response, error) {
	asked, err := http.NewRequestWithContext(cut, "POST", url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	asked.Header.Set("Content-Type", "application/json")
	asked.Header.Set("Authorization", "Bearer sk-bench")
	return client.Do(asked)
}

// one takes one stream and checks that every event is there, whole and in order. How late events are is told of those that are
// sent while `all` streams are open: while hundreds of them are opened or closed in a second the load is another one. `whole`:
// what is behind the end marker is read too, so that the connection can be used again.
func one(cut context.Context, client *http.Client, url, body string, events int, all during, whole bool) (r result) {
	began := time.Now()
	response, err := post(cut, client, url, body)
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
			r.problem = "broke off: " + errorKind(err)
			return
		}
		r.bytes += int64(len(line))
		if !bytes.HasPrefix(line, []byte("data: ")) {
			continue
		}
		if bytes.HasPrefix(line, []byte("data: [DONE]")) {
			if len(r.arrivals) != events {
				r.problem = "events missing"
				return
			}
			if whole {
				if _, err := io.Copy(io.Discard, reader); err != nil {
					r.problem = "has no end: " + errorKind(err)
					return
				}
			}
			r.completed = true
			return
		}
		number, sent, undamaged, ok := stamp(line)
		if !ok {
			continue // a role, finish or usage chunk that a peer adds
		}
		if number != int64(len(r.arrivals)) {
			r.problem = "out of order"
			return
		}
		if !undamaged {
			r.problem = "damaged"
			return
		}
		if untouched(line) {
			r.exact++
		}
		now := time.Now()
		if len(r.arrivals) == 0 {
			r.first = now.Sub(began)
		}
		r.arrivals = append(r.arrivals, now.UnixNano())
		if sent >= all.from && sent < all.to {
			r.latencies = append(r.latencies, now.UnixNano()-sent)
		}
	}
}

var content = []byte(`"content":"`)

// stamp reads an event's content: its number and the time it was made. `whole` says that the filler behind them has its length
// and nothing else in it. Not ok: an event of another kind.
func stamp(line []byte) (number, sent int64, whole, ok bool) {
	_, text, ok := bytes.Cut(line, content)
	if !ok {
		return
	}
	number, rest, first := digits(text)
	sent, rest, second := digits(rest)
	size, rest, third := digits(rest)
	if !first || !second || !third {
		return number, sent, false, false
	}
	filler, _, closed := bytes.Cut(rest, []byte(`"`))
	for _, each := range filler {
		closed = closed && each == 'x'
	}
	return number, sent, closed && len(text)-len(rest)+len(filler) >= int(size), true
}

// untouched says whether an event's line is the upstream's, to the byte. Peers that parse and write JSON anew change it.
func untouched(line []byte) bool {
	end := tail[:len(tail)-1] // without the blank line
	if !bytes.HasPrefix(line, []byte(head)) || !bytes.HasSuffix(line, []byte(end)) || len(line) < len(head)+len(end) {
		return false
	}
	return bytes.IndexByte(line[len(head):len(line)-len(end)], '"') < 0
}

// digits reads a number and the @ behind it, without making anything.
func digits(text []byte) (number int64, rest []byte, ok bool) {
	for i, each := range text {
		switch {
		case each >= '0' && each <= '9':
			number = number*10 + int64(each-'0')
		default:
			return number, text[i+1:], each == '@' && i > 0
		}
	}
	return
}

func errorKind(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		return text[i+2:]
	}
	return text
}
