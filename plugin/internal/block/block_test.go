package block

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
)

// sample is a directive with one property of each kind.
func sample(got *[]string) Directive {
	note := func(name string) func([]string) error {
		return func(args []string) error {
			*got = append(*got, name+"="+strings.Join(args, ","))
			return nil
		}
	}
	return Directive{
		Name: "sample", Usage: "NAME VALUE...", Min: 2, Max: Any, Set: note("line"),
		Properties: []Property{
			{Name: "flag", Set: note("flag")},
			{Name: "one", Usage: "N", Min: 1, Max: 1, Set: func(args []string) error {
				_, err := Int(args[0], 1, 9)
				return errors.Join(err, note("one")(args))
			}},
			{Name: "few", Usage: "A B [C]", Min: 2, Max: 3, Set: note("few")},
			{Name: "many", Usage: "A...", Min: 1, Max: Any, Repeat: true, Set: note("many")},
			{Name: "token", Usage: "SECRET", Min: 1, Max: 1, Secret: true, Set: func(args []string) error {
				return fmt.Errorf("%q is too short", args[0])
			}},
		},
	}
}

// parseAll reads every use of the sample directive as a setup function does.
func parseAll(input string) (got []string, err error) {
	c := caddy.NewTestController("", input)
	for c.Next() {
		if _, err := Parse(c, sample(&got)); err != nil {
			return got, err
		}
	}
	return got, nil
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, input string
		want        []string
	}{
		{"no block", "sample a b", []string{"line=a,b"}},
		{"empty block", "sample a b {\n}", []string{"line=a,b"}},
		{"properties", "sample a b c {\n flag\n one 3\n few 1 2\n}", []string{"line=a,b,c", "flag=", "one=3", "few=1,2"}},
		{"repeatable", "sample a b {\n many 1\n many 2 3\n}", []string{"line=a,b", "many=1", "many=2,3"}},
		{"twice", "sample a b {\n flag\n}\nsample c d", []string{"line=a,b", "flag=", "line=c,d"}},
		{"quoted", "sample \"a b\" \"c\"", []string{"line=a b,c"}},
		{"comment", "sample a b { # why\n # nothing\n flag # this\n}", []string{"line=a,b", "flag="}},
		{"property on the brace's line", "sample a b { flag\n}", []string{"line=a,b", "flag="}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseAll(tc.input)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, input, want string }{
		{"too few arguments", "\nsample a", `Testfile:2 - sample: 1 argument given, 2 or more allowed; usage: sample NAME VALUE...`},
		{"C02 unknown property", "sample a b {\n flag\n color red\n}", `Testfile:3 - sample: unknown property "color"; known are flag, one, few, many, token`},
		{"C03 property twice", "sample a b {\n flag\n one 1\n flag\n}", `Testfile:4 - sample: flag is given already at Testfile:2 and may be given once`},
		{"C09 argument missing", "sample a b {\n one\n}", `Testfile:2 - sample: 0 arguments given, exactly 1 allowed; usage: one N`},
		{"C09 one argument too many", "sample a b {\n one 1 2\n}", `Testfile:2 - sample: 2 arguments given, exactly 1 allowed; usage: one N`},
		{"range of arguments", "sample a b {\n few 1 2 3 4\n}", `Testfile:2 - sample: 4 arguments given, 2 to 3 allowed; usage: few A B [C]`},
		{"flag with argument", "sample a b {\n flag on\n}", `Testfile:2 - sample: 1 argument given, none allowed; usage: flag`},
		{"value refused", "sample a b {\n one 12\n}", `Testfile:2 - sample: one: "12" is out of range; 1 to 9 is allowed`},
		{"nested block", "sample a b {\n one 1 {\n }\n}", `Testfile:2 - sample: one takes no block`},
		{"block without property", "sample a b {\n flag\n {\n }\n}", `Testfile:3 - sample: a block within the block is not allowed`},
		{"C11 closing brace missing", "sample a b {\n flag\n", `Testfile:1 - sample: the closing brace of the block is missing`},
		{"closing brace on the property's line", "sample a b {\n one 1 }\n", `Testfile:2 - sample: the closing brace must stand on a line of its own`},
		{"closing brace on the directive's line", "sample a b }\n", `Testfile:1 - sample: the closing brace must stand on a line of its own`},
		{"opening brace on the next line", "sample a b\n{\n flag\n}", `Testfile:2 - sample: the opening brace must stand at the end of the directive's line`},
		{"opening brace on the next line, too few arguments before", "sample a\n{\n flag\n}", `Testfile:1 - sample: 1 argument given, 2 or more allowed; usage: sample NAME VALUE...`},
		{"comma in a value", "sample a b {\n one 1,2\n}", `Testfile:2 - sample: one: "1,2" is not a whole number; separate by spaces, without commas`},
		{"comma in place of a space", "sample a,b", `Testfile:1 - sample: 1 argument given, 2 or more allowed; usage: sample NAME VALUE...; separate by spaces, without commas`},
		{"no space before a brace", "sample a b {\n one 1{\n}", `Testfile:2 - sample: one: "1{" is not a whole number; put a space before {`},
		{"empty value", "sample a b {\n many 1 \"\"\n}", `Testfile:2 - sample: an argument is empty; is an environment variable of this line not set? usage: many A...`},
		{"empty value on the directive's line", "sample a \"\" b", `Testfile:1 - sample: an argument is empty; is an environment variable of this line not set? usage: sample NAME VALUE...`},
		{"words after the closing brace", "sample a b {\n} flag", `Testfile:2 - sample: unexpected "flag" after the end of the block`},
		{"C16 secret value", "sample a b {\n token hunter2\n}", `Testfile:2 - sample: token: the value is not valid; usage: token SECRET`},
		{"C16 secret of two words", "sample a b {\n token hunter2 x\n}", `Testfile:2 - sample: 2 arguments given, exactly 1 allowed; usage: token SECRET`},
		{"long value", "sample a b {\n " + strings.Repeat("x", 500) + "\n}",
			`Testfile:2 - sample: unknown property "` + strings.Repeat("x", 80) + `..."; known are flag, one, few, many, token`},
		{"newline in a value", "sample a b {\n \"x\ny\"\n}", `Testfile:2 - sample: unknown property "x\ny"; known are flag, one, few, many, token`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseAll(tc.input)
			if err == nil || err.Error() != tc.want {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			var at interface{ Position() (string, int) }
			if !errors.As(err, &at) {
				t.Errorf("error has no position: %T", err)
			}
		})
	}
}

// A brace that closes nothing ends in an error of ours where Caddy's reader lets it through.
func TestParseStrayBrace(t *testing.T) {
	_, err := parseAll("}")
	if want := `Testfile:1 - sample: unexpected "}" after the end of the block`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPosition(t *testing.T) {
	c := caddy.NewTestController("", "\nsample a b {\n flag\n many 1\n many 2\n}")
	c.Next()
	var got []string
	at, err := Parse(c, sample(&got))
	if err != nil {
		t.Fatal(err)
	}
	if at.String() != "Testfile:2" || at.Property("flag").String() != "Testfile:3" || at.Property("many").String() != "Testfile:4" {
		t.Errorf("positions %s, %s, %s", at, at.Property("flag"), at.Property("many"))
	}
	if at.Property("one").String() != "Testfile:2" {
		t.Errorf("a property that wasn't given stands at %s, want the directive's line", at.Property("one"))
	}
	if !at.Has("flag") || at.Has("one") {
		t.Error("Has is wrong")
	}
	wrapped := at.Property("flag").Errorf("flag: %w", errSample)
	if !errors.Is(wrapped, errSample) || wrapped.Error() != "Testfile:3 - sample: flag: sample" {
		t.Errorf("error %v", wrapped)
	}
}

var errSample = errors.New("sample")

// FuzzParse: whatever the text, Parse ends, never panics, and each error is one line, has a line of
// the text, and shows nothing of a secret (C16).
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"sample a b", "sample a b {\n flag\n one 3\n few 1 2\n}", "sample a b {\n many 1\n many 2 {\n}\n}",
		"sample a b\n{\n}", "}}}", "sample {", "sample a b {\n token x\n}", "sample a b { flag }", "sample \"a\nb\" c {\n flag\n}", "{\n{\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		_, err := parseAll(input)
		if err == nil {
			return
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("error of type %T", err)
		}
		if most := strings.Count(input, "\n") + 1; e.Line < 1 || e.Line > most {
			t.Errorf("line %d of %d", e.Line, most)
		}
		if strings.Contains(e.Msg, "\n") || len(e.Msg) > 700 {
			t.Errorf("message %q", e.Msg)
		}
		if strings.HasPrefix(e.Msg, "token: ") && e.Msg != "token: the value is not valid; usage: token SECRET" {
			t.Errorf("secret shown: %q", e.Msg)
		}
	})
}
