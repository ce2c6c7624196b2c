package link

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds of connections that are dialled ahead of need: [Spread.Warm].
const (
	MaxWarm        = 100 // with one target, of a node
	DefaultWarmAge = 8 * time.Second
	MinWarmAge     = time.Second
	MaxWarmAge     = 10 * time.Minute
)

// KeptWarm returns for how long a connection that was dialled ahead is of use: WarmAge, or what it is without a word.
func (s *Spread) KeptWarm() time.Duration {
	if s.WarmAge == 0 {
		return DefaultWarmAge
	}
	return s.WarmAge
}

// ParseWarm reads "N" or "N AGE", such as "4 20s". An age that isn't said is 0. The error wraps [ErrInvalid].
func ParseWarm(s string) (n int, age time.Duration, err error) {
	words := strings.Fields(s)
	if len(words) == 0 || len(words) > 2 {
		return 0, 0, fmt.Errorf("%w: %q: a number of warm connections, and how long they are of use, such as %q", ErrInvalid, clip(s), "4 20s")
	}
	if n, err = strconv.Atoi(words[0]); err != nil {
		return 0, 0, fmt.Errorf("%w: %q is no number of warm connections", ErrInvalid, clip(words[0]))
	}
	if len(words) == 2 {
		if age, err = ParseWarmAge(words[1]); err != nil {
			return 0, 0, err
		}
	}
	return n, age, checkWarm(n, age)
}

// WarmWords returns what ParseWarm reads.
func (s *Spread) WarmWords() string {
	if s.WarmAge == 0 {
		return strconv.Itoa(s.Warm)
	}
	return strconv.Itoa(s.Warm) + " " + s.WarmAge.String()
}

// ParseWarmAge reads how long a warm connection is of use. The error wraps [ErrInvalid].
func ParseWarmAge(s string) (time.Duration, error) {
	age, err := time.ParseDuration(s)
	if err != nil || age <= 0 {
		return 0, fmt.Errorf("%w: %q is no age of warm connections, such as 20s", ErrInvalid, clip(s))
	}
	return age, nil
}

func checkWarm(n int, age time.Duration) error {
	switch {
	case n < 0 || n > MaxWarm:
		return fmt.Errorf("%w: %d warm connections, 0 to %d are allowed", ErrInvalid, n, MaxWarm)
	case age != 0 && n == 0:
		return fmt.Errorf("%w: an age of warm connections, of which there are none", ErrInvalid)
	case age != 0 && (age < MinWarmAge || age > MaxWarmAge):
		return fmt.Errorf("%w: age %s of warm connections, %s to %s are allowed", ErrInvalid, age, MinWarmAge, MaxWarmAge)
	}
	return nil
}

// CheckWarm refuses warm connections where they can't be, or do harm: a service of UDP has none, and a server of MySQL counts
// each that ends before a client has said who it is, and refuses our address when they are too many (max_connect_errors).
// The error wraps [ErrInvalid].
func CheckWarm(n int, p Protocol, pin Pin) error {
	switch {
	case n == 0:
		return nil
	case p == UDP:
		return fmt.Errorf("%w: warm connections with protocol udp, which has no connections", ErrInvalid)
	case pin == PinMySQL:
		return fmt.Errorf("%w: warm connections with pin mysql: a server that sees too many of them end refuses all that come from here", ErrInvalid)
	}
	return nil
}
