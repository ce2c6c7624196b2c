package mmsg

import (
	"bytes"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of a test.
const patience = 10 * time.Second

// socket is a UDP socket of a test.
type socket struct {
	t    *testing.T
	conn *net.UDPConn
	raw  syscall.RawConn
}

func open(t *testing.T, network, addr string, options ...func(fd int) error) *socket {
	t.Helper()
	at, err := net.ResolveUDPAddr(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &socket{t: t}
	if s.conn, err = net.ListenUDP(network, at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.conn.Close() })
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	for _, option := range options {
		var err error
		if e := s.raw.Control(func(fd uintptr) { err = option(int(fd)) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
	}
	return s
}

func (s *socket) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

// send sends messages, all of which find room.
func (s *socket) send(m []Message) {
	s.t.Helper()
	n, errno := 0, syscall.Errno(0)
	if err := s.raw.Write(func(fd uintptr) bool { n, errno = Send(int(fd), m); return errno != unix.EAGAIN }); err != nil || errno != 0 || n != len(m) {
		s.t.Fatalf("%d of %d messages: %v, %v", n, len(m), err, errno)
	}
}

// receive waits for messages and returns how many came.
func (s *socket) receive(m []Message) (n int) {
	s.t.Helper()
	var errno syscall.Errno
	if err := s.raw.Read(func(fd uintptr) bool { n, errno = Receive(int(fd), m); return errno != unix.EAGAIN }); err != nil || errno != 0 {
		s.t.Fatal(err, errno)
	}
	return n
}

// inbox is room for messages that are received.
type inbox struct {
	messages [8]Message
	names    [8]Name
	vecs     [8]unix.Iovec
	data     [8][4096]byte
	controls [8]Controls
}

func newInbox() *inbox {
	in := new(inbox)
	for i := range in.messages {
		in.vecs[i].Base = &in.data[i][0]
		in.vecs[i].SetLen(len(in.data[i]))
		m := &in.messages[i]
		m.SetName(&in.names[i], uint32(unsafe.Sizeof(in.names[i])))
		m.SetPieces(in.vecs[i:][:1])
		m.SetControl(in.controls[i].Bytes())
	}
	return in
}

// name makes a name of an address, and returns its size.
func name(a netip.AddrPort, n *Name) uint32 {
	if a.Addr().Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(n)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: Port(a.Port()), Addr: a.Addr().As4()}
		return unix.SizeofSockaddrInet4
	}
	*n = Name{Family: unix.AF_INET6, Port: Port(a.Port()), Addr: a.Addr().As16()}
	return unix.SizeofSockaddrInet6
}

// TestRoundTrip: what is sent with an address and a size arrives from there and cut, or put together again, and the receiver is told
// where it was sent to; its reply leaves from there, of whatever family the socket is.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name           string
		server, listen string // of the receiver
		network, at    string // of the sender
		from, to       string // that are asked for
		told           string // to, as the receiver is told
	}{
		{"IPv4", "udp4", "0.0.0.0:0", "udp4", "0.0.0.0:0", "127.0.0.77", "127.0.0.78", "127.0.0.78"},
		{"IPv6", "udp6", "[::]:0", "udp6", "[::]:0", "::1", "::1", "::1"},
		{"IPv4 to a socket of both", "udp", ":0", "udp4", "0.0.0.0:0", "127.0.0.77", "127.0.0.78", "::ffff:127.0.0.78"},
	} {
		for _, together := range []bool{true, false} {
			t.Run(tc.name+map[bool]string{true: ", put together", false: ", one by one"}[together], func(t *testing.T) {
				t.Parallel()
				options := []func(int) error{TellDestination}
				if together {
					options = append(options, PutTogether)
				}
				server, client := open(t, tc.server, tc.listen, options...), open(t, tc.network, tc.at)
				const train, alone = "aaaabbbbcc", "dddd"
				sendTrain(client, netip.MustParseAddr(tc.from), netip.AddrPortFrom(netip.MustParseAddr(tc.to), server.port()), train, alone)

				in, got := newInbox(), ""
				for len(got) < len(train+alone) {
					n := server.receive(in.messages[:])
					for i := range n {
						m := &in.messages[i]
						to, size, ok := Read(in.controls[i].Bytes()[:m.Controllen])
						if !ok || to.String() != tc.told || m.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
							t.Errorf("sent to %v, %v, flags %x", to, ok, m.Flags)
						}
						if !together && (size != 0 || m.Size > 4) || size != 0 && size != 4 {
							t.Errorf("%d bytes that are put together of %d each", m.Size, size)
						}
						got += string(in.data[i][:m.Size])
						server.answer(in, i, to, "thanks")
					}
				}
				if got != train+alone {
					t.Errorf("got %q", got)
				}
				b := make([]byte, 64)
				n, from, err := client.conn.ReadFromUDPAddrPort(b)
				if want := netip.AddrPortFrom(netip.MustParseAddr(tc.to), server.port()); err != nil || string(b[:n]) != "thanks" || from != want {
					t.Errorf("%q from %v, want it from %v: %v", b[:n], from, want, err)
				}
			})
		}
	}
}

// sendTrain sends one message of two pieces that is cut every four bytes, and one alone.
func sendTrain(s *socket, from netip.Addr, to netip.AddrPort, train, alone string) {
	s.t.Helper()
	var n Name
	var messages [2]Message
	var controls [2]Controls
	pieces := [3]unix.Iovec{{Base: unsafe.StringData(train)}, {Base: unsafe.StringData(train[3:])}, {Base: unsafe.StringData(alone)}}
	for i, size := range []int{3, len(train) - 3, len(alone)} {
		pieces[i].SetLen(size)
	}
	messages[0].SetPieces(pieces[:2])
	messages[1].SetPieces(pieces[2:])
	for i := range messages {
		messages[i].SetName(&n, name(to, &n))
		b := controls[i].Bytes()
		length := PutSource(b, from)
		if i == 0 {
			length += PutSize(b[length:], 4)
		}
		messages[i].SetControl(b[:length])
	}
	s.send(messages[:])
}

// answer answers a message that was received from where it was sent to: with what the kernel has said of that where nothing else was
// said, else anew.
func (s *socket) answer(in *inbox, i int, to netip.Addr, text string) {
	s.t.Helper()
	var c Controls
	b := in.controls[i].Bytes()[:in.messages[i].Controllen]
	if n := Reply(b); n > 0 {
		b = b[:n]
	} else {
		b = c.Bytes()[:PutSource(c.Bytes(), to)]
	}
	var m [1]Message
	piece := [1]unix.Iovec{{Base: unsafe.StringData(text)}}
	piece[0].SetLen(len(text))
	m[0].SetPieces(piece[:])
	m[0].SetName(&in.names[i], in.messages[i].Namelen)
	m[0].SetControl(b)
	s.send(m[:])
}

// TestEmpty: a datagram without a byte goes through, on a socket that is connected.
func TestEmpty(t *testing.T) {
	t.Parallel()
	server := open(t, "udp4", "127.0.0.1:0")
	conn, err := net.DialUDP("udp4", nil, server.conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var m [1]Message
	m[0].SetName(nil, 0)
	m[0].SetPieces(nil)
	m[0].SetControl(nil)
	(&socket{t: t, raw: raw}).send(m[:])
	in := newInbox()
	if n := server.receive(in.messages[:]); n != 1 || in.messages[0].Size != 0 || Port(in.names[0].Port) != conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() {
		t.Errorf("%d messages, %d bytes from port %d", n, in.messages[0].Size, Port(in.names[0].Port))
	}
}

// TestNoWait: neither call waits, on a socket that would.
func TestNoWait(t *testing.T) {
	t.Parallel()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	in := newInbox()
	if n, errno := Receive(fds[0], in.messages[:]); n != 0 || errno != unix.EAGAIN {
		t.Errorf("%d messages of an empty socket, %v", n, errno)
	}
	var m [1]Message
	vec := [1]unix.Iovec{{Base: &bytes.Repeat([]byte{1}, 4096)[0]}}
	vec[0].SetLen(4096)
	m[0].SetPieces(vec[:])
	errno := syscall.Errno(0)
	for range 100_000 { // more than its buffer takes
		if _, errno = Send(fds[0], m[:]); errno != 0 {
			break
		}
	}
	if errno != unix.EAGAIN {
		t.Errorf("a full socket says %v", errno)
	}
}

// TestErrors: an error is of the first message; those behind it are sent with the next call.
func TestErrors(t *testing.T) {
	t.Parallel()
	server, client := open(t, "udp4", "127.0.0.1:0"), open(t, "udp4", "127.0.0.1:0")
	var n Name
	size := name(server.conn.LocalAddr().(*net.UDPAddr).AddrPort(), &n)
	big := make([]byte, 66_000)
	vecs := [2]unix.Iovec{{Base: &big[0]}, {Base: &big[0]}}
	vecs[0].SetLen(len(big))
	vecs[1].SetLen(1)
	var m [2]Message
	for i := range m {
		m[i].SetName(&n, size)
		m[i].SetPieces(vecs[i:][:1])
	}
	if err := client.raw.Control(func(fd uintptr) {
		if sent, errno := Send(int(fd), m[:]); sent != 0 || errno != unix.EMSGSIZE {
			t.Errorf("%d messages, %v", sent, errno)
		}
	}); err != nil {
		t.Fatal(err)
	}
	client.send(m[1:])
	in := newInbox()
	if got := server.receive(in.messages[:]); got != 1 || in.messages[0].Size != 1 {
		t.Errorf("%d messages of %d bytes", got, in.messages[0].Size)
	}
	if n, errno := Receive(-1, in.messages[:]); n != 0 || errno != unix.EBADF {
		t.Errorf("%d, %v", n, errno)
	}
	if err := TellDestination(-1); err == nil {
		t.Error("no socket tells")
	}
	if err := PutTogether(-1); err == nil {
		t.Error("no socket puts together")
	}
}
