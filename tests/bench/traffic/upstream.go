package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// The model's name says what to send: "bench:events=200,pace=20,size=120"; pace 0 is as fast as it is taken.
type script struct {
	events int
	pace   float64
	size   int
	id     int
}

func parse(model string) script {
	s := script{events: 100, pace: 0, size: 24}
	if _, options, ok := strings.Cut(model, ":"); ok {
		for _, part := range strings.FieldsFunc(options, func(r rune) bool { return r == ',' || r == ';' }) {
			name, number, _ := strings.Cut(part, "=")
			value, err := strconv.ParseFloat(number, 64)
			if err != nil {
				continue
			}
			switch name {
			case "events":
				s.events = int(value)
			case "pace":
				s.pace = value
			case "size":
				s.size = int(value)
			case "id":
				s.id = int(value)
			}
		}
	}
	return s
}

func upstream(args []string) {
	flags := flag.NewFlagSet("upstream", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:0", "address")
	flags.Parse(args)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	fmt.Printf("upstream http://%s\n", listener.Addr())
	var traces = sink{spans: map[string]int{}}
	http.HandleFunc("/v1/chat/completions", chat)
	http.HandleFunc("/otlp/v1/traces", traces.take)
	http.HandleFunc("/otlp/v1/", accept)
	http.HandleFunc("/otlp/spans", traces.tell)
	http.HandleFunc("/closed", tellClosings)
	http.HandleFunc("/cpu", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, ownCPU()) })
	// Whoever started this holds its standard input: when that ends, so does this.
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	http.Serve(listener, nil)
}

func chat(w http.ResponseWriter, r *http.Request) {
	var body struct{ Model string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	s := parse(body.Model)
	if s.id != 0 {
		go noteClosing(r, s.id) // when it happens, not when the next event is written
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flusher := w.(http.Flusher)
	buffer := make([]byte, 0, 64*1024)
	start := time.Now()
	for i := 0; i < s.events; i++ {
		if s.pace > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(i) / s.pace * float64(time.Second)))))
		}
		buffer = event(buffer, i, s.size)
		// In a burst, events share a write, as they do when an upstream is ahead of its reader.
		if s.pace > 0 || len(buffer) > 16*1024 || i == s.events-1 {
			if _, err := w.Write(buffer); err != nil {
				return
			}
			flusher.Flush()
			buffer = buffer[:0]
		}
		if r.Context().Err() != nil {
			return
		}
	}
	io.WriteString(w, "data: [DONE]\n\n")
}

const head = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"bench","service_tier":"default","system_fingerprint":"fp_bench","choices":[{"index":0,"delta":{"content":"`
const tail = `"},"logprobs":null,"finish_reason":null}]}` + "\n\n"

// event appends one event: its number, the time, and how many bytes its content has at least, by filler.
func event(to []byte, number, size int) []byte {
	to = append(to, head...)
	from := len(to)
	to = strconv.AppendInt(to, int64(number), 10)
	to = append(to, '@')
	to = strconv.AppendInt(to, time.Now().UnixNano(), 10)
	to = append(to, '@')
	to = strconv.AppendInt(to, int64(size), 10)
	to = append(to, '@')
	for len(to)-from < size {
		to = append(to, 'x')
	}
	return append(to, tail...)
}
