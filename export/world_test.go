package export

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/postern-link/postern/internal/freeport"
	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/store"
	"github.com/postern-link/postern/store/bolt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// buffer is the log of a receiver.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// siem is a receiver that goes away and comes back at the same address.
type siem struct {
	t      *testing.T
	addr   string
	server *http.Server
	ended  chan struct{}
	// answer says what becomes of a request, nil or true: it is taken.
	answer atomic.Pointer[func(http.ResponseWriter, *http.Request, []byte) bool]

	mu    sync.Mutex
	flows []map[string]any
	audit []store.Line
}

func newSIEM(t *testing.T) *siem {
	s := &siem{t: t, addr: fmt.Sprintf("127.0.0.1:%d", freeport.Get(t))}
	t.Cleanup(s.down)
	return s
}

func (s *siem) url() string { return "http://" + s.addr }

func (s *siem) up() *siem {
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	server, ended := &http.Server{Handler: s}, make(chan struct{})
	s.server, s.ended = server, ended
	go func() { defer close(ended); _ = server.Serve(l) }()
	return s
}

func (s *siem) down() {
	if s.server != nil {
		s.server.Close()
		<-s.ended
		s.server = nil
	}
}

func (s *siem) answers(f func(http.ResponseWriter, *http.Request, []byte) bool) { s.answer.Store(&f) }

// fails answers with a status, n times at first.
func (s *siem) fails(status int, n int32) {
	var left atomic.Int32
	left.Store(n)
	s.answers(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		if left.Add(-1) >= 0 {
			w.WriteHeader(status)
			return false
		}
		return true
	})
}

func (s *siem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if f := s.answer.Load(); f != nil && !(*f)(w, r, body) {
		return
	}
	s.take(r, body)
}

// take keeps what a request holds.
func (s *siem) take(r *http.Request, body []byte) {
	z, err := gzip.NewReader(bytes.NewReader(body))
	var plain []byte
	if err == nil {
		plain, err = io.ReadAll(z)
	}
	if err != nil || r.Header.Get("Content-Encoding") != "gzip" || r.Method != http.MethodPost {
		s.t.Errorf("%s, %v", r.Method, err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Content-Type") == "application/x-protobuf" {
		s.takeOTLP(r, plain)
		return
	}
	for line := range strings.Lines(string(plain)) {
		if r.Header.Get(headerRecords) == "audit" {
			var l struct {
				Revision uint64
				Line     []byte
				Chain    store.Chain
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				s.t.Errorf("%v: %s", err, line)
			}
			if is, err := store.LineChain(l.Line); err != nil || is != l.Chain {
				s.t.Errorf("the chain of %d isn't that of its line: %v", l.Revision, err)
			}
			s.audit = append(s.audit, store.Line{Revision: l.Revision, Bytes: l.Line})
			continue
		}
		var f map[string]any
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			s.t.Errorf("%v: %s", err, line)
		}
		s.flows = append(s.flows, f)
	}
}

// takeOTLP reads a request as a collector does. The caller holds mu.
func (s *siem) takeOTLP(r *http.Request, plain []byte) {
	var all logspb.LogsData
	if err := proto.Unmarshal(plain, &all); err != nil || r.URL.Path != "/v1/logs" {
		s.t.Errorf("%s: %v", r.URL.Path, err)
		return
	}
	for _, l := range all.ResourceLogs[0].ScopeLogs[0].LogRecords {
		f := map[string]any{"message": l.Body.GetStringValue()}
		for _, a := range l.Attributes {
			f[a.Key] = valueOf(a.Value)
		}
		if all.ResourceLogs[0].ScopeLogs[0].Scope.Name == "postern.flows" {
			s.flows = append(s.flows, f)
			continue
		}
		chain, err := hex.DecodeString(f["chain"].(string))
		if err != nil {
			s.t.Error(err)
		}
		line := append(append([]byte{byte(f["format"].(float64))}, chain...), f["message"].(string)...)
		s.audit = append(s.audit, store.Line{Revision: uint64(f["revision"].(float64)), Bytes: line})
	}
}

func valueOf(v *commonpb.AnyValue) any {
	switch v := v.Value.(type) {
	case *commonpb.AnyValue_IntValue:
		return float64(v.IntValue)
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	}
	return v.GetStringValue()
}

// has returns how many flow records and entries have come.
func (s *siem) has() (flows, audit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flows), len(s.audit)
}

// flow returns the i-th flow record that has come.
func (s *siem) flow(i int) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flows[i]
}

// flowsBut returns the flow records without those of a message.
func (s *siem) flowsBut(message string) (all []map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.flows {
		if f["message"] != message {
			all = append(all, f)
		}
	}
	return all
}

// verify returns the revision of the last entry. What has come twice must be the same, and everything follow from the first.
func (s *siem) verify() (last uint64) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var chain store.Chain
	known := map[uint64]string{}
	for _, l := range s.audit {
		if before, again := known[l.Revision]; again {
			if before != string(l.Bytes) {
				s.t.Fatalf("entry %d came twice and isn't the same", l.Revision)
			}
			continue
		}
		if l.Revision != last+1 {
			s.t.Fatalf("entry %d comes after %d", l.Revision, last)
		}
		var err error
		if _, chain, err = chain.Next(l.Revision, l.Bytes); err != nil {
			s.t.Fatal(err)
		}
		known[l.Revision], last = string(l.Bytes), l.Revision
	}
	return last
}

// world is a state with what sends it.
type world struct {
	t        *testing.T
	dir      string
	store    *bolt.Store
	log      *buffer
	registry *prometheus.Registry
	metrics  *Metrics
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), log: &buffer{}, registry: prometheus.NewRegistry()}
	w.store = w.open("state.db")
	var err error
	if w.metrics, err = NewMetrics(w.registry); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open(name string) *bolt.Store {
	s, err := bolt.Open(filepath.Join(w.dir, name), bolt.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// commit makes n entries of the audit record, and returns the revision.
func (w *world) commit(n int) uint64 { return commitTo(w.t, w.store, n) }

func commitTo(t *testing.T, s store.Store, n int) uint64 {
	t.Helper()
	now, err := s.Load(t.Context())
	for range n {
		if err != nil {
			break
		}
		i := int(now.Revision())
		e := store.Entry{ID: store.NewID(), At: time.Unix(1700000000+int64(i), 0), Actor: "tester", Action: "network.put", Reason: "because <of> the test"}
		now, err = s.Commit(t.Context(), now, e, link.PutNetwork{Network: link.Network{
			ID: link.ID(fmt.Sprint("net-", i)), Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)},
		}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return now.Revision()
}

// config is a receiver that gets everything.
func (w *world) config(s *siem, kind Kind) Config {
	url, err := CheckURL(kind, s.url(), false)
	if err != nil {
		w.t.Fatal(err)
	}
	return Config{Name: "siem", Kind: kind, URL: url, Flows: true, Audit: true, Position: filepath.Join(w.dir, "siem.position"), Agent: "postern/test"}
}

// new makes a receiver that is in a hurry.
func (w *world) new(c Config) *Receiver {
	w.t.Helper()
	r, err := New(c, Options{Node: "edge", Source: w.store, Log: slog.New(slog.NewTextHandler(w.log, nil)), Metrics: w.metrics})
	if err != nil {
		w.t.Fatal(err)
	}
	r.pace = pace{linger: 10 * time.Millisecond, request: patience, first: 5 * time.Millisecond, most: 50 * time.Millisecond, poll: patience}
	return r
}

// start starts a receiver until the end of the test.
func (w *world) start(c Config) *Receiver {
	r := w.new(c)
	w.run(r)
	return r
}

func (w *world) run(r *Receiver) {
	r.Start(true)
	w.t.Cleanup(func() { end(r, 0) })
}

// end closes a receiver, once, within a time.
func end(r *Receiver, within time.Duration) {
	ctx, cancel := contextFor(within)
	defer cancel()
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if !over {
		r.Close(ctx)
	}
}

// metric returns the value of a metric with these label values, in any order of their names.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	all, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() != "postern_export_"+name {
			continue
		}
		for _, m := range f.Metric {
			if has(m, labels) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

func has(m *dto.Metric, labels []string) bool {
	n := 0
	for _, l := range m.Label {
		for _, want := range labels {
			if l.GetValue() == want {
				n++
			}
		}
	}
	return n == len(labels)
}

// line is what stands in the line of a flow, as the data plane hands it over.
type line struct{ i int }

func (l line) LogValue() slog.Value {
	return slog.GroupValue(slog.String("flow", fmt.Sprintf("%032x", l.i)), slog.String("reason", "client"), slog.Int64("to_target", int64(l.i)),
		slog.Duration("duration", 1500*time.Millisecond), slog.String("detail", "a \"word\"\n<b>"))
}

// records are n of them, from a number on.
func records(from, n int) (all []slog.Record) {
	for i := range n {
		r := slog.NewRecord(time.Unix(1700000000, 5), slog.LevelInfo, "flow ended", 0)
		r.AddAttrs(slog.Any("", line{from + i}))
		all = append(all, r)
	}
	return all
}
