package armapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a JSON text, so that decoding one takes little more memory than the text.
const (
	maxDepth   = 32
	maxMembers = 512   // of one object
	maxValues  = 32768 // in all
)

// checkJSON returns an error unless b is one JSON object within the bounds that means one thing: valid
// UTF-8, no key twice in an object in any letter case (encoding/json takes "Name" for "name"), no half of a
// surrogate pair, no number that a float64 can't hold. encoding/json itself lets all of these pass.
func checkJSON(b []byte) error {
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case !utf8.Valid(b):
		return errors.New("it isn't valid UTF-8")
	case !json.Valid(b):
		return errors.New("it isn't one JSON value")
	}
	s := scanner{text: b}
	s.space()
	if s.text[s.at] != '{' {
		return errors.New("a JSON object is expected")
	}
	return s.value("", 0)
}

// scanner walks through a text that is known to be valid JSON.
type scanner struct {
	text   []byte
	at     int
	values int
}

func (s *scanner) space() {
	for s.at < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
}

// value walks through one value. path names it for errors.
func (s *scanner) value(path string, depth int) error {
	if s.values++; s.values > maxValues {
		return fmt.Errorf("it has more than %d values", maxValues)
	}
	s.space()
	switch c := s.text[s.at]; c {
	case '{', '[':
		if depth == maxDepth {
			return fmt.Errorf("it is nested deeper than %d", maxDepth)
		}
		s.at++
		if c == '{' {
			return s.object(path, depth)
		}
		return s.array(path, depth)
	case '"':
		_, err := s.str(path)
		return err
	case 't', 'n':
		s.at += len("true")
	case 'f':
		s.at += len("false")
	default:
		return s.number(path)
	}
	return nil
}

func (s *scanner) object(path string, depth int) error {
	seen := map[string]bool{}
	for {
		if s.space(); s.text[s.at] == '}' {
			s.at++
			return nil
		}
		key, err := s.str(path)
		if err != nil {
			return err
		}
		inner := strings.TrimPrefix(path+"."+key, ".")
		if folded := fold(key); seen[folded] {
			return fmt.Errorf("the key %s is there twice", quote(inner))
		} else if len(seen) == maxMembers {
			return fmt.Errorf("the object %s has more than %d members", quote(path), maxMembers)
		} else {
			seen[folded] = true
		}
		s.space()
		s.at++ // ':'
		if err := s.value(inner, depth+1); err != nil {
			return err
		}
		if s.space(); s.text[s.at] == ',' {
			s.at++
		}
	}
}

// fold makes keys that encoding/json takes for the same field equal: it compares as strings.EqualFold
// does, for which ſ is an s and the Kelvin sign a k.
func fold(key string) string {
	return strings.NewReplacer("ſ", "s", "\u212a", "k").Replace(strings.ToLower(key))
}

func (s *scanner) array(path string, depth int) error {
	for i := 0; ; i++ {
		if s.space(); s.text[s.at] == ']' {
			s.at++
			return nil
		}
		if err := s.value(path+"["+strconv.Itoa(i)+"]", depth+1); err != nil {
			return err
		}
		if s.space(); s.text[s.at] == ',' {
			s.at++
		}
	}
}

// str walks through a string and returns what it means.
func (s *scanner) str(path string) (string, error) {
	begin, escaped := s.at, false
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] != '\\' {
			continue
		}
		escaped = true
		if s.at++; s.text[s.at] != 'u' {
			continue
		}
		if err := s.surrogates(path); err != nil {
			return "", err
		}
	}
	s.at++
	if !escaped {
		return string(s.text[begin+1 : s.at-1]), nil
	}
	var out string
	err := json.Unmarshal(s.text[begin:s.at], &out)
	return out, err
}

// surrogates looks at the \u escape whose 'u' is at s.at, with its other half if it needs one.
func (s *scanner) surrogates(path string) error {
	first := s.unit(s.at + 1)
	s.at += 4
	if first < 0xd800 || first > 0xdfff {
		return nil
	}
	if first <= 0xdbff && s.at+6 < len(s.text) && s.text[s.at+1] == '\\' && s.text[s.at+2] == 'u' {
		if second := s.unit(s.at + 3); second >= 0xdc00 && second <= 0xdfff {
			s.at += 6
			return nil
		}
	}
	return fmt.Errorf("the text at %s has half of a surrogate pair", quote(path))
}

// unit returns the four hexadecimal digits at i.
func (s *scanner) unit(i int) uint64 {
	n, _ := strconv.ParseUint(string(s.text[i:i+4]), 16, 16) // valid: json.Valid has said so
	return n
}

func (s *scanner) number(path string) error {
	begin := s.at
	for s.at < len(s.text) && strings.IndexByte("+-.0123456789eE", s.text[s.at]) >= 0 {
		s.at++
	}
	if _, err := strconv.ParseFloat(string(s.text[begin:s.at]), 64); err != nil {
		return fmt.Errorf("the number at %s is out of range", quote(path))
	}
	return nil
}
