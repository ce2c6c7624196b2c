package linkexit

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// written is a list with a text, opened.
func written(t testing.TB, text string) *list {
	t.Helper()
	path := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &list{path: path, log: slog.New(slog.DiscardHandler)}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParseList(t *testing.T) {
	for _, tt := range []struct{ name, text, err string }{
		{"names", "a.example # ours\n\n  *.B.example.  \n.c.example\n_ldap._tcp.d.example\r\nxn--bcher-kva.example\nlocalhost", ""},
		{"empty", "", "names: no name in it; to pass nothing on, use mode closed"},
		{"comments", "# a.example\n", "names: no name in it; to pass nothing on, use mode closed"},
		{"two in a line", "a.example\nb.example c.example\n", "names:2: one name in a line is allowed"},
		{"all names", "*.\n", `names:1: "*.": that is all names; to pass all on, use mode open`},
		{"the root", ".", `names:1: ".": that is all names; to pass all on, use mode open`},
		{"an asterisk", "*", `names:1: "*": labels are made of letters, digits, '-' and '_'; names in other scripts begin with xn--`},
		{"an asterisk within", "a.*.example", "labels are made of"},
		{"an asterisk in a label", "a*.example", "labels are made of"},
		{"an empty label", "a..example", `names:1: "a..example": a label is empty`},
		{"an address", "10.0.0.1", `names:1: "10.0.0.1": that is an address, not a name`},
		{"a URL", "https://a.example/", "labels are made of"},
		{"another script", "bücher.example", "labels are made of"},
		{"an escape", `a\.b.example`, "labels are made of"},
		{"NUL", "a\x00.example", "labels are made of"},
		{"a long label", strings.Repeat("a", 64) + ".example", "a label has at most 63 bytes"},
		{"a long name", strings.Repeat("a.", 127) + "b", "a name has at most 253 bytes"},
		{"a line without end", strings.Repeat("a", 1<<20), "a name has at most 253 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := parseList("names", []byte(tt.text))
			switch {
			case tt.err == "" && (err != nil || len(e) != 6):
				t.Errorf("%v, %v", e, err)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || len(err.Error()) > 400):
				t.Errorf("error %v, want %s", err, tt.err)
			}
		})
	}
}

func TestListBounds(t *testing.T) {
	var b strings.Builder
	for i := range maxListNames + 1 {
		b.WriteString(strings.Repeat("a", 1+i%50) + "." + strings.Repeat("b", 1+i/50%60) + "." + strings.Repeat("c", 1+i/3000%60) + ".d" + strings.Repeat("e", i/180000) + "\n")
	}
	if _, err := parseList("names", []byte(b.String())); err == nil || !strings.Contains(err.Error(), "more than 250000 names") {
		t.Errorf("error %v", err)
	}
	path := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(path, make([]byte, maxListBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readList(path); err == nil || !strings.Contains(err.Error(), "it has more than 16777216 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestListReload: a changed file is in force within a second of the next query; a wrong one leaves the one before, is
// logged once and doesn't keep the next good one out.
func TestListReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := written(t, "a.example\n")
		var said lines
		l.log = slog.New(slog.NewTextHandler(&said, nil))
		put := func(text string) {
			if err := os.WriteFile(l.path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := func(a, b bool) {
			t.Helper()
			for range 3 {
				time.Sleep(lookEvery)
				l.has("x.example")
			}
			if l.has("a.example") != a || l.has("b.example") != b {
				t.Errorf("a %v, b %v, want %v and %v\n%s", l.has("a.example"), l.has("b.example"), a, b, said.String())
			}
		}
		want(true, false)
		put("a.example\nb.example\n")
		want(true, true)
		put("a.example\nb..example\n")
		want(true, true)
		if err := os.Remove(l.path); err != nil {
			t.Fatal(err)
		}
		want(true, true)
		put("")
		want(true, true)
		next := l.path + ".new" // with rename, as editors do
		if err := os.WriteFile(next, []byte("b.example\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, l.path); err != nil {
			t.Fatal(err)
		}
		want(false, true)
		if n := strings.Count(said.String(), "not reloaded"); n != 3 {
			t.Errorf("%d complaints:\n%s", n, said.String())
		}
		if n := strings.Count(said.String(), "list of names reloaded"); n != 2 {
			t.Errorf("%d reloads:\n%s", n, said.String())
		}
	})
}

// FuzzList: what is taken is found again as a slow reading of the rule says, and nothing else.
func FuzzList(f *testing.F) {
	f.Add("a.example\n*.b.example\n.c.example", "x.c.example.")
	f.Add(".example", `evil\.example.`)
	f.Add("*.com # all", "com.")
	f.Fuzz(func(t *testing.T, text, asked string) {
		e, err := parseList("names", []byte(text))
		if err != nil {
			if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("error %q", err)
			}
			return
		}
		l := &list{}
		l.entries.Store(&e)
		never := time.Now().Add(time.Hour)
		l.next.Store(&never)
		folded := fold(asked)
		want := false
		for name, s := range e {
			want = want || s&itself != 0 && folded == name || s&inner != 0 && strings.HasSuffix(folded, "."+name)
		}
		if got := l.has(folded); got != want {
			t.Errorf("%q in %q: %v", folded, text, got)
		}
	})
}
