package main

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"sync"
)

// sink is an OTLP/HTTP collector that accepts every trace and counts its spans by the service that sent them, so that a
// benchmark can tell whether what it measures really exported any.
type sink struct {
	mutex sync.Mutex
	spans map[string]int
}

func (s *sink) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	// ExportTraceServiceRequest.resource_spans = 1; .resource = 1 (attributes = 1), .scope_spans = 2; .spans = 2
	for _, resource := range fields(body, 1) {
		name := ""
		for _, r := range fields(resource, 1) {
			for _, attribute := range fields(r, 1) {
				if key := fields(attribute, 1); len(key) == 1 && string(key[0]) == "service.name" {
					name = string(fields(fields(attribute, 2)[0], 1)[0])
				}
			}
		}
		for _, scope := range fields(resource, 2) {
			s.spans[name] += len(fields(scope, 2))
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// accept takes metrics and logs, and keeps nothing of them.
func accept(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (s *sink) tell(w http.ResponseWriter, r *http.Request) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	json.NewEncoder(w).Encode(s.spans)
}

// fields gives the contents of all length-delimited fields of a protobuf message that have this number.
func fields(message []byte, number uint64) (found [][]byte) {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return
		}
		message = message[n:]
		switch tag & 7 {
		case 0:
			_, n = binary.Uvarint(message)
		case 1:
			n = 8
		case 5:
			n = 4
		case 2:
			var size uint64
			size, n = binary.Uvarint(message)
			if n > 0 && uint64(len(message)) >= uint64(n)+size {
				if tag>>3 == number {
					found = append(found, message[n:n+int(size)])
				}
				n += int(size)
			} else {
				return
			}
		}
		if n <= 0 || n > len(message) {
			return
		}
		message = message[n:]
	}
	return
}
