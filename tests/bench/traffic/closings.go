package main

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// closings are the moments at which streams that carry an id were closed from the other side, or ended: wall clock, ns.
var closings = struct {
	sync.Mutex
	at map[int]int64
}{at: map[int]int64{}}

func noteClosing(r *http.Request, id int) {
	<-r.Context().Done()
	now := time.Now().UnixNano()
	closings.Lock()
	closings.at[id] = now
	closings.Unlock()
}

func tellClosings(w http.ResponseWriter, r *http.Request) {
	closings.Lock()
	defer closings.Unlock()
	json.NewEncoder(w).Encode(closings.at)
}
