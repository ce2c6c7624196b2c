//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/postern-link/postern/internal/mmsg"
)

// The generator of bursts: sockets, queries that each has outstanding, and how long an answer is waited for before they count as lost.
const (
	burstSockets = 8
	burstWindow  = 16
	burstSize    = 8 // at least so many are sent at once where no rate is given
	burstLost    = 200 * time.Millisecond
)

// burstJob is what the generator is told.
type burstJob struct {
	To      netip.AddrPort
	From    netip.Addr
	Queries string  // file: a name and a type a line
	EDNS    bool    // with a client cookie
	Seconds float64 // of the run
	Rate    int     // queries a second; 0: as many as are answered
}

// burstReport is what it says at its end. Latencies count from when a query was due.
type burstReport struct {
	Completed, Lost   int
	QPS, Average, P99 float64 // the latter two in seconds, at a fixed rate only
	Seconds           float64
}

// burstSocket is one socket with its window.
type burstSocket struct {
	fd          int
	outstanding int
	heard       time.Time // when the last answer came
	sent        []int64   // by query ID: when it was due, in nanoseconds; 0: not outstanding
	nextID      uint16
	out, in     [burstWindow]mmsg.Message
	iov, iovIn  [burstWindow]unix.Iovec
	sizes       [burstWindow]mmsg.Controls
	queries     [burstWindow][512]byte
	answers     [burstWindow][1232]byte
}

// runBurst is the generator's process.
func runBurst(args []string) error {
	var job burstJob
	if len(args) != 1 {
		return errors.New("burst: one argument, the job")
	}
	if err := json.Unmarshal([]byte(args[0]), &job); err != nil {
		return err
	}
	wire, err := job.wire()
	if err != nil {
		return err
	}
	report, err := job.run(wire)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// wire reads the queries and packs them.
func (j burstJob) wire() ([][]byte, error) {
	text, err := os.ReadFile(j.Queries)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
		if j.EDNS {
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: dnsCookie}}
		}
		packed, err := m.Pack()
		if err != nil || len(packed) > 512 {
			return nil, fmt.Errorf("query %s: %d bytes, %w", name, len(packed), err)
		}
		all = append(all, packed)
	}
	if len(all) == 0 {
		return nil, errors.New("no queries")
	}
	return all, nil
}

func (j burstJob) open() ([]*burstSocket, error) {
	var all []*burstSocket
	for range burstSockets {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(
			unix.Bind(fd, &unix.SockaddrInet4{Addr: j.From.As4()}),
			unix.Connect(fd, &unix.SockaddrInet4{Addr: j.To.Addr().As4(), Port: int(j.To.Port())}),
		); err != nil {
			return nil, err
		}
		s := &burstSocket{fd: fd, heard: time.Now(), sent: make([]int64, 1<<16)}
		for i := range s.out {
			s.iov[i].Base, s.iovIn[i].Base = &s.queries[i][0], &s.answers[i][0]
			s.iovIn[i].SetLen(len(s.answers[i]))
			s.in[i].SetPieces(s.iovIn[i:][:1])
		}
		all = append(all, s)
	}
	return all, nil
}

// run asks until the time is over.
func (j burstJob) run(wire [][]byte) (burstReport, error) {
	sockets, err := j.open()
	if err != nil {
		return burstReport{}, err
	}
	var r burstReport
	var latencies []time.Duration
	next, asked := 0, 0
	begin := time.Now()
	end := begin.Add(time.Duration(j.Seconds * float64(time.Second)))
	for now := begin; now.Before(end); now = time.Now() {
		for _, s := range sockets {
			got, err := s.receive(now, begin, j.Rate > 0, &latencies)
			if err != nil {
				return r, err
			}
			r.Completed += got
			if s.outstanding > 0 && now.Sub(s.heard) > burstLost {
				r.Lost += s.outstanding
				s.outstanding, s.heard = 0, now
				clear(s.sent)
			}
			room := burstWindow - s.outstanding
			if j.Rate > 0 {
				room = min(room, int(now.Sub(begin).Seconds()*float64(j.Rate))-asked)
			}
			if room <= 0 || j.Rate == 0 && room < burstSize {
				continue
			}
			due := func(i int) int64 { return now.Sub(begin).Nanoseconds() + 1 }
			if j.Rate > 0 {
				first := asked
				due = func(i int) int64 { return int64(first+i)*int64(time.Second)/int64(j.Rate) + 1 }
			}
			n, err := s.send(wire, &next, room, due)
			if err != nil {
				return r, err
			}
			asked += n
		}
	}
	r.Seconds = time.Since(begin).Seconds()
	r.QPS = float64(r.Completed) / r.Seconds
	if len(latencies) > 0 {
		slices.Sort(latencies)
		var sum time.Duration
		for _, l := range latencies {
			sum += l
		}
		r.Average, r.P99 = (sum / time.Duration(len(latencies))).Seconds(), latencies[len(latencies)*99/100].Seconds()
	}
	return r, nil
}

// receive takes the answers that are there, and returns how many belong to a query.
func (s *burstSocket) receive(now, begin time.Time, timed bool, latencies *[]time.Duration) (int, error) {
	n, errno := mmsg.Receive(s.fd, s.in[:])
	switch {
	case errno == unix.EAGAIN:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("recvmmsg: %w", errno)
	}
	got := 0
	for i := range n {
		if s.in[i].Size < 12 || s.answers[i][2]&0x80 == 0 {
			continue
		}
		id := binary.BigEndian.Uint16(s.answers[i][:])
		if s.sent[id] == 0 {
			continue // it counted as lost
		}
		if timed {
			*latencies = append(*latencies, time.Since(begin)-time.Duration(s.sent[id]))
		}
		s.sent[id] = 0
		got++
	}
	s.outstanding -= got
	if got > 0 {
		s.heard = now
	}
	return got, nil
}

// send asks the next n queries in one call, and returns how many went out. due says when each was, counted from the beginning.
func (s *burstSocket) send(wire [][]byte, next *int, n int, due func(i int) int64) (int, error) {
	if s.outstanding == 0 {
		s.heard = time.Now()
	}
	for i := range n {
		q := wire[(*next+i)%len(wire)]
		copy(s.queries[i][:], q)
		binary.BigEndian.PutUint16(s.queries[i][:], s.nextID+uint16(i))
		s.iov[i].SetLen(len(q))
	}
	taken, errno := mmsg.Send(s.fd, s.out[:s.pack(n)])
	switch {
	case errno == unix.EAGAIN || errno == unix.ECONNREFUSED:
		return 0, nil
	case errno != 0:
		return 0, fmt.Errorf("sendmmsg: %w", errno)
	}
	sent := 0
	for i := range taken {
		sent += int(s.out[i].Iovlen)
	}
	for i := range sent {
		s.sent[s.nextID+uint16(i)] = due(i)
	}
	s.nextID += uint16(sent)
	s.outstanding += sent
	*next += sent
	return sent, nil
}

// pack makes messages of the first n queries, one of those of one size that follow each other, and returns how many. The kernel cuts them, so that the
// generator, which has one processor as the server has, is the faster of the two.
func (s *burstSocket) pack(n int) int {
	messages := 0
	for at := 0; at < n; messages++ {
		alike := 1
		for at+alike < n && s.iov[at+alike].Len == s.iov[at].Len {
			alike++
		}
		m, c := &s.out[messages], s.sizes[messages].Bytes()
		m.SetPieces(s.iov[at:][:alike])
		m.SetControl(c[:mmsg.PutSize(c, int(s.iov[at].Len))])
		at += alike
	}
	return messages
}

// dnsCookie is the client cookie of queries with EDNS (RFC 7873), in hexadecimal.
const dnsCookie = "0123456789abcdef"

// burst runs the generator on the load's CPUs. It returns its report and the CPU time that it used.
func (b *bench) burst(job burstJob) (burstReport, time.Duration, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return burstReport{}, 0, err
	}
	args := b.pinned(b.loadCPUs, b.self, "-role", "burst", string(text))
	out, spent, err := b.generate(args)
	if err != nil {
		return burstReport{}, 0, err
	}
	var r burstReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, 0, fmt.Errorf("the generator's report %s: %w", strconv.Quote(out), err)
	}
	return r, spent, nil
}
