package armapi

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestCheckJSON is A14 and A15: what encoding/json lets pass, or takes for what another reader doesn't.
func TestCheckJSON(t *testing.T) {
	nested := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for _, c := range []struct{ name, text, want string }{
		{"an object", `{"a":{"b":[1,true,null,"x"]},"c":-1.5e3}`, ""},
		{"space around", " \r\n{\t}\n", ""},
		{"a surrogate pair", `{"a":"\ud83d\ude00"}`, ""},
		{"the same key in two objects", `{"a":{"x":1},"b":{"x":1}}`, ""},
		{"deep enough", nested(maxDepth - 1), ""},
		{"A14 empty", ``, "empty"},
		{"A14 space alone", ` `, "one JSON value"},
		{"A14 null", `null`, "object is expected"},
		{"A14 a list", `[]`, "object is expected"},
		{"A14 deep", nested(9000), "nested deeper"},
		{"A14 deeper than encoding/json goes", nested(20000), "one JSON value"},
		{"A14 one too deep", nested(maxDepth), "nested deeper"},
		{"A14 many values", `{"a":[` + strings.Repeat("0,", maxValues) + `0]}`, "more than"},
		{"A14 many members", `{` + members(maxMembers+1) + `}`, "members"},
		{"A15 duplicate key", `{"a":1,"a":2}`, "'a' is there twice"},
		{"A15 duplicate key below", `{"p":{"q":[{"x":1,"x":1}]}}`, "'p.q[0].x' is there twice"},
		{"A15 duplicate in another case", `{"name":1,"NAME":2}`, "twice"},
		{"A15 duplicate written as an escape", `{"a":1,"\u0061":2}`, "twice"},
		{"A15 duplicate by folding", "{\"s\":1,\"\u017f\":2}", "twice"},
		{"A15 number out of range", `{"a":1e999}`, "out of range"},
		{"A15 second value", `{} {}`, "one JSON value"},
		{"A15 trailing bytes", `{}x`, "one JSON value"},
		{"A15 invalid UTF-8", "{\"a\":\"\xff\"}", "UTF-8"},
		{"A15 overlong UTF-8", "{\"a\":\"\xc0\xaf\"}", "UTF-8"},
		{"A15 high surrogate alone", `{"a":"\ud800"}`, "surrogate"},
		{"A15 low surrogate alone", `{"a":"\udc00"}`, "surrogate"},
		{"A15 two high surrogates", `{"a":"\ud800\ud800"}`, "surrogate"},
		{"A15 high surrogate and a letter", `{"a":"\ud800x"}`, "surrogate"},
		{"A15 surrogate in a key", `{"\ud800":1}`, "surrogate"},
		{"a byte order mark", "\ufeff{}", "one JSON value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkJSON([]byte(c.text))
			if c.want == "" {
				if err != nil {
					t.Errorf("%v", err)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func members(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = `"` + strings.Repeat("k", i+1) + `":0`
	}
	return strings.Join(all, ",")
}

// FuzzCheckJSON: what passes is what encoding/json takes for one object, and writing it again changes no
// meaning: no text was repaired, no member dropped.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1e999}`, `{"a":"\ud800"}`, `{"a":1,"A":2}`, `{"a":[{"b":"\\\"\u0041"}]}`, "{\"a\":\"\xff\"}", `{"a":[[[[]]]]}`, `{"":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkJSON(b) != nil {
			return
		}
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%q passes, and encoding/json refuses it: %v", b, err)
		}
		if countReplaced(v) > len(replacement.FindAll(b, -1)) {
			t.Fatalf("%q was repaired", b)
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkJSON(again); err != nil {
			t.Fatalf("%q passes, and written again as %q it doesn't: %v", b, again, err)
		}
	})
}

var replacement = regexp.MustCompile(`(?i)\\ufffd|` + "\ufffd")

// countReplaced counts the replacement characters in v.
func countReplaced(v any) (n int) {
	switch v := v.(type) {
	case string:
		return strings.Count(v, "\ufffd")
	case []any:
		for _, e := range v {
			n += countReplaced(e)
		}
	case map[string]any:
		for k, e := range v {
			n += strings.Count(k, "\ufffd") + countReplaced(e)
		}
	}
	return n
}
