package main

import (
	"math"
	"sort"
	"syscall"
	"time"
)

const bucket = 50 * time.Millisecond

type report struct {
	Streams       int            `json:"streams"`
	Completed     int            `json:"completed"`
	Events        int            `json:"events"`
	Expected      int            `json:"expected"`
	Exact         int            `json:"exact"` // of the events, those that came as they were sent
	Bytes         int64          `json:"bytes"`
	Seconds       float64        `json:"seconds"`
	EventsPerSec  float64        `json:"events_per_second"`
	LatencyMs     quantileTable  `json:"latency_ms"`
	FirstMs       quantileTable  `json:"first_event_ms"`
	Problems      map[string]int `json:"problems"`
	OwnCPUSeconds float64        `json:"own_cpu_seconds"`
	StartUnix     float64        `json:"start_unix"`
	BucketSeconds float64        `json:"bucket_seconds"`
	OpenSeconds   float64        `json:"open_seconds"`   // when the last stream had its first event
	EndingSeconds float64        `json:"ending_seconds"` // when the first stream had its last
	Timeline      []int          `json:"timeline"`       // events that arrived in each bucket since the start
}

type quantileTable map[string]float64

func summary(results []result, start time.Time, expected int) report {
	seconds := time.Since(start).Seconds()
	total := report{
		Streams: len(results), Seconds: seconds, Expected: expected, Problems: map[string]int{},
		StartUnix: float64(start.UnixNano()) / 1e9, BucketSeconds: bucket.Seconds(),
		Timeline: make([]int, 2+int(seconds/bucket.Seconds())),
	}
	total.EndingSeconds = seconds
	var latencies, firsts []float64
	for _, r := range results {
		total.Events += len(r.arrivals)
		total.Bytes += r.bytes
		total.Exact += r.exact
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
		if n := len(r.arrivals); n > 0 {
			total.OpenSeconds = math.Max(total.OpenSeconds, float64(r.arrivals[0]-start.UnixNano())/1e9)
			total.EndingSeconds = math.Min(total.EndingSeconds, float64(r.arrivals[n-1]-start.UnixNano())/1e9)
		}
		for _, at := range r.arrivals {
			total.Timeline[(at-start.UnixNano())/int64(bucket)]++
		}
	}
	total.EventsPerSec = float64(total.Events) / seconds
	total.LatencyMs = quantiles(latencies)
	total.FirstMs = quantiles(firsts)
	total.OwnCPUSeconds = ownCPU()
	return total
}

func ownCPU() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func quantiles(values []float64) quantileTable {
	if len(values) == 0 {
		return quantileTable{}
	}
	sort.Float64s(values)
	at := func(q float64) float64 { return values[int(q*float64(len(values)-1))] }
	return quantileTable{"count": float64(len(values)), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
}
