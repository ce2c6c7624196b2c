package linkapi

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/postern-link/postern/link"
)

// ownListeners returns the addresses and TCP ports that this process listens on, DNS, metrics and the API
// among them, as the kernel knows them (proc(5), /proc/net/tcp): whichever directive has opened them,
// those for endpoints too. Where the kernel doesn't tell, the list is empty.
func ownListeners() (all []netip.AddrPort) {
	mine := ownSockets()
	for _, path := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			ap, inode, ok := listening(line)
			if ok && mine[inode] {
				all = append(all, ap)
			}
		}
	}
	return all
}

// ownAddresses returns the addresses of this machine's interfaces but for those of endpoints; none where it
// doesn't tell.
func ownAddresses(s *link.Snapshot) (all []netip.Addr) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, f := range found {
		p, err := netip.ParsePrefix(f.String())
		if err == nil && (s == nil || s.EndpointAt(p.Addr()) == nil) {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// ownSockets returns the inodes of the sockets that this process has open.
func ownSockets() map[string]bool {
	const dir = "/proc/self/fd"
	all := map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return all
	}
	for _, e := range entries {
		to, err := os.Readlink(dir + "/" + e.Name())
		if inode, ok := strings.CutPrefix(to, "socket:["); err == nil && ok {
			all[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return all
}

// stateListen is TCP_LISTEN in the fourth column.
const stateListen = "0A"

// listening reads a line of /proc/net/tcp: "sl local remote state ... inode". ok is false for other states.
func listening(line string) (ap netip.AddrPort, inode string, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != stateListen {
		return ap, "", false
	}
	host, port, _ := strings.Cut(fields[1], ":")
	b, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(b)%4 != 0 {
		return ap, "", false
	}
	for i := 0; i < len(b); i += 4 { // 32-bit words in the byte order of the machine, little-endian on all of ours
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), fields[9], ok
}

// parseCertificates returns the certificates of a PEM text; what isn't one is left out.
func parseCertificates(text []byte) (all []*x509.Certificate) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return all
		}
		if c, err := x509.ParseCertificate(b.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

// validHost reports whether the name of a host can stand in a certificate.
func validHost(h string) bool {
	_, err := link.ParseName(h)
	return err == nil && !strings.Contains(h, "*")
}
