package linkpolicy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a static binary runs where no zones are installed

	"github.com/postern-link/postern/plugin/internal/block"
	"github.com/postern-link/postern/policy"
)

const day = 24 * 60 // minutes

// windows parses HH:MM-HH:MM... [DAY...] [ZONE], as often as it comes: days and zone are of all spans that
// stand before them.
func windows(args []string) (all []policy.Window, err error) {
	for len(args) > 0 {
		var group []policy.Window
		for len(args) > 0 && isSpan(args[0]) {
			w, err := span(args[0])
			if err != nil {
				return nil, err
			}
			group, args = append(group, w), args[1:]
		}
		if len(group) == 0 {
			return nil, fmt.Errorf("%s stands where a time is wanted; one looks like 08:00-18:00", block.Quote(args[0]))
		}
		var days policy.Days
		for len(args) > 0 && isDays(args[0]) {
			d, err := parseDays(args[0])
			if err != nil {
				return nil, err
			}
			days, args = days|d, args[1:]
		}
		var zone *time.Location
		if len(args) > 0 && !isSpan(args[0]) {
			if zone, err = parseZone(args[0]); err != nil {
				return nil, err
			}
			args = args[1:]
		}
		for _, w := range group {
			w.Days, w.Zone = days, zone
			if slices.Contains(all, w) {
				return nil, fmt.Errorf("%s is given twice", w)
			}
			all = append(all, w)
		}
	}
	return all, nil
}

// isSpan reports whether a word is meant to be a span of time.
func isSpan(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }

// span parses HH:MM-HH:MM.
func span(s string) (w policy.Window, err error) {
	from, to, is := strings.Cut(s, "-")
	if !is {
		return w, fmt.Errorf("%s is not a time; one looks like 08:00-18:00", block.Quote(s))
	}
	if w.From, err = minute(from); err == nil {
		w.To, err = minute(to)
	}
	switch {
	case err != nil:
		return w, fmt.Errorf("%s is not a time: %w", block.Quote(s), err)
	case w.From == w.To, w.From == day:
		return w, fmt.Errorf("time %s is empty; the whole day is 00:00-24:00", s)
	case w.To == 0: // until midnight, not over it
		w.To = day
	}
	return w, nil
}

// minute parses HH:MM, up to 24:00.
func minute(s string) (int, error) {
	if len(s) != 5 || s[2] != ':' {
		return 0, fmt.Errorf("%s is not HH:MM", block.Quote(s))
	}
	h, err := block.Int(s[:2], 0, 24)
	if err != nil {
		return 0, err
	}
	m, err := block.Int(s[3:], 0, 59)
	if err == nil && h == 24 && m > 0 {
		err = fmt.Errorf("the day ends at 24:00")
	}
	return h*60 + m, err
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// isDays reports whether a word is meant to be days.
func isDays(s string) bool {
	first, _, _ := strings.Cut(s, "-")
	return slices.Contains(weekdays, first)
}

// parseDays parses a weekday or a range of them, which may go over the end of the week.
func parseDays(s string) (days policy.Days, err error) {
	first, last, is := strings.Cut(s, "-")
	if !is {
		last = first
	}
	from, to := slices.Index(weekdays, first), slices.Index(weekdays, last)
	if to < 0 {
		return 0, fmt.Errorf("%s is not a day; one is sun, mon, tue, wed, thu, fri, sat, or a range such as mon-fri", block.Quote(s))
	}
	for d := from; ; d = (d + 1) % 7 {
		days |= policy.Day(time.Weekday(d))
		if d == to {
			return days, nil
		}
	}
}

// parseZone returns the zone of a name in the IANA database. That of the machine isn't one: it would make
// the same Corefile mean another thing elsewhere.
func parseZone(s string) (*time.Location, error) {
	zone, err := time.LoadLocation(s)
	if err != nil || s == "Local" {
		return nil, fmt.Errorf("%s is neither a day nor a time zone; they look like mon-fri and Europe/Berlin", block.Quote(s))
	}
	if zone == time.UTC {
		return nil, nil
	}
	return zone, nil
}
