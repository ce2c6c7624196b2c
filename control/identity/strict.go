package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// index holds the line of each value of a JSON text by its path, such as "identities[2].name".
type index map[string]int

// decodeStrict decodes a JSON text into v, a pointer to a struct of structs, slices, strings, bools and
// maps of strings. Beyond encoding/json it refuses keys that the type doesn't have letter by letter, the
// same key twice, null, invalid text and anything behind the value. Errors name the line and the path,
// and no value: a secret may stand where something else belongs.
func decodeStrict(text []byte, v any) (index, error) {
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("line %d: invalid UTF-8", 1+bytes.Count(text[:validPrefix(text)], []byte("\n")))
	}
	w := walker{dec: json.NewDecoder(bytes.NewReader(text)), text: text, lines: index{}, line: 1}
	w.dec.UseNumber()
	err := w.value("", reflect.TypeOf(v).Elem())
	if err == nil {
		if _, more := w.dec.Token(); !errors.Is(more, io.EOF) {
			err = w.fail("", "something follows the closing brace")
		}
	}
	if err != nil {
		return nil, err
	}
	return w.lines, json.Unmarshal(text, v)
}

// validPrefix returns how many bytes are valid UTF-8.
func validPrefix(text []byte) int {
	n := 0
	for n < len(text) {
		r, size := utf8.DecodeRune(text[n:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		n += size
	}
	return n
}

// walker goes through a text along a type. line is the one of the byte at offset at.
type walker struct {
	dec   *json.Decoder
	text  []byte
	lines index
	line  int
	at    int64
}

func (w *walker) value(path string, t reflect.Type) error {
	tok, err := w.token(path)
	if err != nil {
		return err
	}
	w.lines[path] = w.line
	switch t.Kind() {
	case reflect.Pointer:
		return w.inside(path, t.Elem(), tok)
	default:
		return w.inside(path, t, tok)
	}
}

// inside judges the value that begins with tok.
func (w *walker) inside(path string, t reflect.Type, tok json.Token) error {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if tok != json.Delim('{') {
			return w.fail(path, "an object is expected, %s found", kind(tok))
		}
		return w.object(path, t)
	case reflect.Slice:
		if tok != json.Delim('[') {
			return w.fail(path, "a list is expected, %s found", kind(tok))
		}
		for i := 0; w.dec.More(); i++ {
			if err := w.value(fmt.Sprintf("%s[%d]", path, i), t.Elem()); err != nil {
				return err
			}
		}
		_, err := w.token(path)
		return err
	case reflect.Bool:
		if _, ok := tok.(bool); !ok {
			return w.fail(path, "true or false is expected, %s found", kind(tok))
		}
	default:
		s, ok := tok.(string)
		if !ok {
			return w.fail(path, "a string is expected, %s found", kind(tok))
		}
		// The decoder puts U+FFFD in the place of a lone surrogate.
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }) {
			return w.fail(path, "a control character or half of a character")
		}
	}
	return nil
}

// object reads the members up to the closing brace.
func (w *walker) object(path string, t reflect.Type) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.token(path)
		if err != nil {
			return err
		}
		key, _ := tok.(string) // an object's keys are, or the decoder says so
		below, ok := member(t, key)
		switch {
		case !ok:
			return w.fail(path, "there is no field %q", clip(key))
		case seen[key]:
			return w.fail(path, "the field %q stands here twice", clip(key))
		}
		seen[key] = true
		if err := w.value(strings.TrimPrefix(path+"."+clip(key), "."), below); err != nil {
			return err
		}
	}
	_, err := w.token(path)
	return err
}

// member returns the type of a field by its exact name.
func member(t reflect.Type, key string) (reflect.Type, bool) {
	if t.Kind() == reflect.Map {
		return t.Elem(), true
	}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == key {
			return f.Type, true
		}
	}
	return nil, false
}

// token returns the next token and moves the line to its end.
func (w *walker) token(path string) (json.Token, error) {
	tok, err := w.dec.Token()
	end := w.dec.InputOffset()
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		end = max(end, min(syntax.Offset, int64(len(w.text))))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		end = int64(len(w.text))
	}
	w.line += bytes.Count(w.text[w.at:max(w.at, end)], []byte("\n"))
	w.at = max(w.at, end)
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, w.fail(path, "the text ends too early")
	case err != nil:
		return nil, w.fail(path, "%v", err)
	}
	return tok, nil
}

func (w *walker) fail(path, format string, args ...any) error {
	return lineError(w.line, path, format, args...)
}

// lineError is how every complaint about the file reads: "line 3: tenants[0].id: what is wrong".
func lineError(line int, path, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if path != "" {
		what = path + ": " + what
	}
	return fmt.Errorf("line %d: %s", line, what)
}

// kind names a token without showing it.
func kind(tok json.Token) string {
	switch tok := tok.(type) {
	case nil:
		return "null"
	case json.Delim:
		if tok == '{' {
			return "an object"
		}
		return "a list"
	case bool:
		return "true or false"
	case string:
		return "a string"
	}
	return "a number"
}

// clip shortens foreign text for an error or the log, and hides what looks like a secret of ours or a JWT.
func clip(s string) string {
	if strings.Contains(s, tokenPrefix) || strings.Contains(s, secretPrefix) || strings.Contains(s, "eyJ") {
		return "(hidden)"
	}
	const most = 100
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
