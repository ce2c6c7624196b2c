package export

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// accepting listens on loopback and gives each connection to does, in a goroutine of its own. It returns the URL.
func accepting(t *testing.T, does func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go does(c)
		}
	}()
	return "http://" + l.Addr().String()
}

// endsSoon fails the test if a receiver doesn't end although it has no time left.
func endsSoon(t *testing.T, r *Receiver) {
	t.Helper()
	ended := make(chan struct{})
	go func() { end(r, 100*time.Millisecond); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the receiver doesn't end")
	}
}

// A receiver that switches protocols (101) holds up neither the records nor the end.
func TestSwitchingProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	asked := make(chan struct{}, 64)
	c := w.config(newSIEM(t), Webhook)
	c.Audit = false
	c.URL = accepting(t, func(c net.Conn) {
		q, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		asked <- struct{}{}
	})
	r := w.new(c)
	r.pace.request = 200 * time.Millisecond
	r.Start(true)
	r.Add(records(0, 3), 0)
	<-asked
	eventually(t, "it counts as away", func() bool { return strings.Contains(w.log.String(), "can't be sent") })
	<-asked // and is tried again
	endsSoon(t, r)
}

// What a receiver says, which may be what it was told, isn't in the log.
func TestStrangeAnswersAreNotTold(t *testing.T) {
	for name, does := range map[string]func(net.Conn){
		"no HTTP": func(c net.Conn) { _, _ = io.Copy(c, c); c.Close() },
		"a place that is none": func(c net.Conn) {
			q, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, q.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 302 "+q.URL.String()+"\r\nLocation: http://x/%zz"+q.Header.Get("Authorization")+q.URL.String()+"\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c := w.config(newSIEM(t), Webhook)
			c.Audit = false
			c.URL = accepting(t, does) + "/in?key=s3cr3t"
			c.Token = write(t, filepath.Join(w.dir, "token"), "s3cr3t-t0ken")
			r := w.start(c)
			r.Add(records(0, 3), 0)
			eventually(t, "it is told", func() bool { return strings.Contains(w.log.String(), "can't be sent") })
			if strings.Contains(w.log.String(), "s3cr3t") {
				t.Error(w.log)
			}
		})
	}
}

// stuck takes nothing until it is opened.
type stuck struct{ open chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.open; return len(p), nil }

// The end of a receiver doesn't wait for a log that takes nothing.
func TestStuckLog(t *testing.T) {
	t.Parallel()
	w, log := newWorld(t), stuck{make(chan struct{})}
	r, err := New(w.config(newSIEM(t), Webhook), Options{Node: "edge", Source: w.store, Log: slog.New(slog.NewTextHandler(log, nil)), Metrics: w.metrics})
	if err != nil {
		t.Fatal(err)
	}
	defer close(log.open)
	r.Start(true)
	w.commit(1)
	r.Add(records(0, 3), 0)
	eventually(t, "it is tried", func() bool {
		return w.metric("failures_total", "siem", "flows") > 0 && w.metric("failures_total", "siem", "audit") > 0
	})
	endsSoon(t, r)
}

// A file that is no position is never written over, and a place where none can be written is told at once.
func TestPositionOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.config(newSIEM(t), Webhook)
	const key = "-----BEGIN PRIVATE KEY-----\n"
	c.Position = write(t, filepath.Join(w.dir, "key.pem"), key)
	o := Options{Node: "edge", Source: w.store, Log: slog.New(slog.DiscardHandler), Metrics: w.metrics}
	if _, err := New(c, o); err == nil || !strings.Contains(err.Error(), c.Position) {
		t.Errorf("%v", err)
	}
	if text, err := os.ReadFile(c.Position); err != nil || string(text) != key {
		t.Errorf("%q %v", text, err)
	}
	for _, text := range []string{"", "\x00\x00\x00\x00", positionWord[:9], positionWord + " 7 ", "qostern-export-position 1 7 "} { // cut or damaged
		c.Position = write(t, filepath.Join(w.dir, "damaged"), text)
		if _, err := New(c, o); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	c.Position = filepath.Join(w.dir, "key.pem", "position")
	if _, err := New(c, o); err == nil {
		t.Error("a directory that is none")
	}
}
