package linkservice

import (
	"strings"
	"testing"

	"github.com/postern-link/postern/link"
)

// TestProbeWords: a Corefile and the API read the words of a probe alike.
func TestProbeWords(t *testing.T) {
	for _, words := range []string{
		"tcp", "tls", "tls DB.example.", "tls *.example.com", "tls a b", "tcp x", "udp", "http", "http /", "http up", "http /up 204", "http /up 99", "http /up 600",
		"http /up 0", "http /up x", "http /up#a",
	} {
		p, err := probe(strings.Fields(words))
		q, there := link.ParseProbe(words)
		if (err == nil) != (there == nil) || err == nil && p != q {
			t.Errorf("%q: here %+v, %v; there %+v, %v", words, p, err, q, there)
		}
	}
}
