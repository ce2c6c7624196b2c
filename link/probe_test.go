package link

import (
	"errors"
	"strings"
	"testing"
)

func TestParseProbe(t *testing.T) {
	for _, tt := range []struct {
		words string
		want  Probe
		bad   string // part of the error
	}{
		{"", Probe{}, ""},
		{"tcp", Probe{}, ""},
		{"tls", Probe{Kind: ProbeTLS}, ""},
		{"tls DB.example.", Probe{Kind: ProbeTLS, Name: "db.example"}, ""},
		{"http /up", Probe{Kind: ProbeHTTP, Path: "/up"}, ""},
		{" http  /up?a=1 204 ", Probe{Kind: ProbeHTTP, Path: "/up?a=1", Status: 204}, ""},
		{"udp", Probe{}, "tcp, tls and http"},
		{"tcp x", Probe{}, "too many"},
		{"tls a.example b.example", Probe{}, "too many"},
		{"tls *.example.com", Probe{}, "name"},
		{"http", Probe{}, "needs a path"},
		{"http up", Probe{}, "begins with"},
		{"http / 99", Probe{}, "status 99"},
		{"http / 0", Probe{}, "status"},
		{"http / ok", Probe{}, "status"},
		{"http / 200 x", Probe{}, "too many"},
	} {
		p, err := ParseProbe(tt.words)
		if tt.bad == "" && (err != nil || p != tt.want) || tt.bad != "" && (p != (Probe{}) || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.bad)) {
			t.Errorf("%q: %+v, %v", tt.words, p, err)
		}
	}
}

// FuzzParseProbe: whatever is read can be stored, and is written as it is read.
func FuzzParseProbe(f *testing.F) {
	for _, words := range []string{"", "tcp", "tls", "tls db.example", "http /", "http /up 204", "http /# 1", "x"} {
		f.Add(words)
	}
	f.Fuzz(func(t *testing.T, words string) {
		p, err := ParseProbe(words)
		if err != nil {
			return
		}
		if err := p.check(); err != nil {
			t.Fatalf("%q is read as %+v: %v", words, p, err)
		}
		if again, err := ParseProbe(p.String()); err != nil || again != p {
			t.Fatalf("%+v is written as %q and read as %+v, %v", p, p, again, err)
		}
	})
}
