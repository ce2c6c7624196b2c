package header

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	armon "github.com/armon/go-proxyproto"
	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
	"github.com/postern-link/postern/link"
)

var (
	v4 = netip.MustParseAddrPort("10.1.2.3:40000")
	e4 = netip.MustParseAddrPort("10.200.0.5:1433")
	v6 = netip.MustParseAddrPort("[fd00:1::7]:40001")
	e6 = netip.MustParseAddrPort("[fd00:200::5]:443")
	m4 = netip.MustParseAddrPort("[::ffff:10.1.2.3]:40000")
)

const linkID link.LinkID = 0x210045C1

var uniqueID = []byte("0123456789abcdef")

func flow(source, local netip.AddrPort) Flow {
	return Flow{
		Source: source, Local: local, LinkID: linkID, Endpoint: "contoso-sql-corp",
		Name: "contoso.database.windows.net", UniqueID: uniqueID,
	}
}

// P19: byte by byte.
func TestGolden(t *testing.T) {
	const sign = "0d0a0d0a000d0a515549540a"
	tests := []struct {
		name string
		kind link.ProxyProtocol
		flow Flow
		want string // hexadecimal, without the four bytes of the checksum
	}{
		{"off", link.ProxyOff, flow(v4, e4), ""},
		{"azure", link.ProxyAzure, Flow{Source: v4, Local: e4, LinkID: linkID},
			sign + "2111001b" + "0a010203" + "0ac80005" + "9c40" + "0599" + "ee000501c1450021" + "030004"},
		{"gcp", link.ProxyGCP, Flow{Source: v4, Local: e4, LinkID: linkID},
			sign + "2111001e" + "0a010203" + "0ac80005" + "9c40" + "0599" + "e0000800000000210045c1" + "030004"},
		{"aws", link.ProxyAWS, Flow{Source: v4, Local: e4, Endpoint: "vpce-1"},
			sign + "2111001d" + "0a010203" + "0ac80005" + "9c40" + "0599" + "ea000701" + hex.EncodeToString([]byte("vpce-1")) + "030004"},
		{"v2 with authority and unique ID, IPv6", link.ProxyV2, Flow{Source: v6, Local: e6, Name: "a.example", UniqueID: []byte("id")},
			sign + "2121003c" + "fd000001000000000000000000000007" + "fd000200000000000000000000000005" + "9c41" + "01bb" +
				"020009" + hex.EncodeToString([]byte("a.example")) + "050002" + hex.EncodeToString([]byte("id")) + "030004"},
		{"v2, IPv6 client of an IPv4 endpoint", link.ProxyV2, Flow{Source: v6, Local: e4},
			sign + "2121002b" + "fd000001000000000000000000000007" + "00000000000000000000ffff0ac80005" + "9c41" + "0599" + "030004"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := Append(nil, test.kind, test.flow)
			if !ok {
				t.Fatal("not known")
			}
			if len(got) > 4 {
				sum := got[len(got)-4:]
				zero := append(bytes.Clone(got[:len(got)-4]), 0, 0, 0, 0)
				if want := crc32.Checksum(zero, crc32.MakeTable(crc32.Castagnoli)); hex.EncodeToString(sum) != hex32(want) {
					t.Errorf("checksum %x, want %08x", sum, want)
				}
				got = got[:len(got)-4]
			}
			if hex.EncodeToString(got) != test.want {
				t.Errorf("got  %x\nwant %s", got, test.want)
			}
		})
	}
	for _, test := range []struct {
		name string
		flow Flow
		want string
	}{
		{"v1, IPv4", flow(v4, e4), "PROXY TCP4 10.1.2.3 10.200.0.5 40000 1433\r\n"},
		{"v1, mapped", flow(m4, e4), "PROXY TCP4 10.1.2.3 10.200.0.5 40000 1433\r\n"},
		{"v1, IPv6", flow(v6, e6), "PROXY TCP6 fd00:1::7 fd00:200::5 40001 443\r\n"},
		{"v1, mixed", flow(v4, e6), "PROXY TCP6 ::ffff:10.1.2.3 fd00:200::5 40000 443\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, _ := Append([]byte("x"), link.ProxyV1, test.flow); string(got) != "x"+test.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func hex32(v uint32) string {
	return hex.EncodeToString([]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// P19: what other people's readers see.
func TestReadBack(t *testing.T) {
	for _, kind := range []link.ProxyProtocol{link.ProxyV1, link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP} {
		for name, f := range map[string]Flow{
			"IPv4": flow(v4, e4), "IPv6": flow(v6, e6), "IPv4 to IPv6": flow(v4, e6), "IPv6 to IPv4": flow(v6, e4),
		} {
			t.Run(string(kind)+", "+name, func(t *testing.T) {
				b, _ := Append(nil, kind, f)
				r := bufio.NewReader(io.MultiReader(bytes.NewReader(b), strings.NewReader("payload")))
				h, err := proxyproto.Read(r)
				if err != nil {
					t.Fatal(err)
				}
				source, dest, ok := h.TCPAddrs()
				if !ok || addr(source) != f.Source || addr(dest) != f.Local {
					t.Errorf("from %v to %v", source, dest)
				}
				if rest, _ := io.ReadAll(r); string(rest) != "payload" {
					t.Errorf("behind the header: %q", rest)
				}
				if kind != link.ProxyV1 {
					checkTLVs(t, h, kind, f)
				}
			})
		}
	}
}

func addr(a *net.TCPAddr) netip.AddrPort {
	return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
}

func checkTLVs(t *testing.T, h *proxyproto.Header, kind link.ProxyProtocol, f Flow) {
	t.Helper()
	tlvs, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	value := map[proxyproto.PP2Type]string{}
	for _, v := range tlvs {
		value[v.Type] = string(v.Value)
	}
	if value[proxyproto.PP2_TYPE_AUTHORITY] != string(f.Name) || value[proxyproto.PP2_TYPE_UNIQUE_ID] != string(f.UniqueID) {
		t.Errorf("authority %q, unique ID %q", value[proxyproto.PP2_TYPE_AUTHORITY], value[proxyproto.PP2_TYPE_UNIQUE_ID])
	}
	azure, isAzure := tlvparse.FindAzurePrivateEndpointLinkID(tlvs)
	gcp, isGCP := tlvparse.ExtractPSCConnectionID(tlvs)
	if isAzure != (kind == link.ProxyAzure) || isAzure && azure != uint32(f.LinkID) {
		t.Errorf("Azure link ID %x %v", azure, isAzure)
	}
	if isGCP != (kind == link.ProxyGCP) || isGCP && gcp != uint64(f.LinkID) {
		t.Errorf("Google connection ID %x %v", gcp, isGCP)
	}
	if kind == link.ProxyAWS && value[0xEA] != "\x01"+string(f.Endpoint) {
		t.Errorf("AWS endpoint %q", value[0xEA])
	}
}

// P19: the reader that much Go software has used for version 1.
func TestReadBackV1(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	b, _ := Append(nil, link.ProxyV1, flow(v4, e4))
	go client.Write(append(b, 'x'))
	c := armon.NewConn(server, time.Minute)
	defer c.Close()
	var one [1]byte
	if _, err := io.ReadFull(c, one[:]); err != nil || one[0] != 'x' {
		t.Fatalf("read %q, error %v", one, err)
	}
	if c.RemoteAddr().String() != v4.String() {
		t.Errorf("source %v", c.RemoteAddr())
	}
}

func TestLocal(t *testing.T) {
	if b := AppendLocal(nil, link.ProxyOff); len(b) != 0 {
		t.Errorf("off: %q", b)
	}
	for _, kind := range []link.ProxyProtocol{link.ProxyV1, link.ProxyV2, link.ProxyAzure, link.ProxyAWS, link.ProxyGCP} {
		h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(AppendLocal(nil, kind))))
		if err != nil || !h.Command.IsLocal() {
			t.Errorf("%s: %+v, error %v", kind, h, err)
		}
	}
}

func TestUnknownKind(t *testing.T) {
	if b, ok := Append(nil, "v3", flow(v4, e4)); ok || len(b) != 0 {
		t.Errorf("%q is a header of an unknown kind", b)
	}
}

// X37: whole and in pieces.
func TestBegins(t *testing.T) {
	for _, text := range []string{"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "PROXY UNKNOWN\r\n", signature + "\x21\x11", "PROXY", signature} {
		known := false
		for n := range len(text) + 1 {
			is, maybe := Begins([]byte(text[:n]))
			known = known || is
			if known != is || maybe == is {
				t.Errorf("%q: is %v, maybe %v", text[:n], is, maybe)
			}
		}
		if !known {
			t.Errorf("%q isn't seen", text)
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\n", "PROX\r\n", "proxy TCP4", "\r\n\r\n", "\r\n\r\n\x00\r\nQUIT\r", "\x16\x03\x01", "x"} {
		if is, maybe := Begins([]byte(text)); is || maybe && text != "\r\n\r\n" {
			t.Errorf("%q: is %v, maybe %v", text, is, maybe)
		}
	}
}

// FuzzBegins: a header that a reader takes is one that is seen.
func FuzzBegins(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"))
	b, _ := Append(nil, link.ProxyAzure, flow(v4, e4))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
		if is, _ := Begins(b); err == nil && !is {
			t.Errorf("%q is a header", b)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	f, buf := flow(v4, e4), make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		Append(buf, link.ProxyAzure, f)
	}
}
