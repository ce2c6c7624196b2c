package policy

import (
	"fmt"
	"strings"
	"time"
)

// Window is a part of the day, in the time of a zone.
type Window struct {
	// From is the first minute of the day that is in it, 0 to 1439; To the first that no longer is, 1 to
	// 1440. With To before From it goes over midnight.
	From, To int
	Days     Days           // on which it begins; 0: every day
	Zone     *time.Location // nil: UTC
}

// Days is a set of weekdays, bit 0 for Sunday.
type Days uint8

// Day returns the set of one weekday.
func Day(d time.Weekday) Days { return 1 << d }

// has reports whether a weekday is in the set; the empty set has all.
func (d Days) has(day time.Weekday) bool { return d == 0 || d&Day(day) != 0 }

// Holds reports whether a time is in the window. It goes by what the clocks of the zone show: what they
// leave out when they are put forward doesn't come, what they show twice is in it twice.
func (w Window) Holds(t time.Time) bool {
	zone := w.Zone
	if zone == nil {
		zone = time.UTC
	}
	t = t.In(zone)
	minute, day := t.Hour()*60+t.Minute(), t.Weekday()
	switch {
	case w.From < w.To:
		return w.From <= minute && minute < w.To && w.Days.has(day)
	case minute >= w.From:
		return w.Days.has(day)
	}
	return minute < w.To && w.Days.has((day+6)%7) // it began the day before
}

// String returns the window as a Corefile says it.
func (w Window) String() string {
	s := fmt.Sprintf("%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.To/60, w.To%60)
	for day := range 7 {
		if d := time.Weekday((day + 1) % 7); w.Days&Day(d) != 0 {
			s += " " + strings.ToLower(d.String()[:3])
		}
	}
	if w.Zone != nil {
		s += " " + w.Zone.String()
	}
	return s
}

// String returns the ports as a Corefile says them.
func (r PortRange) String() string {
	if r.First == r.Last {
		return fmt.Sprint(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// words returns the conditions as a Corefile says them.
func (c *Conditions) words() (all []string) {
	all = listed(all, "endpoint", c.Endpoints)
	all = listed(all, "service", c.Services)
	all = listed(all, "tenant", c.Tenants)
	all = listed(all, "network", c.Networks)
	all = listed(all, "source", c.Sources)
	all = listed(all, "name", c.Names)
	all = listed(all, "port", c.Ports)
	all = listed(all, "time", c.Times)
	for _, e := range c.When {
		all = append(all, "when", `"`+strings.ReplaceAll(e.String(), `"`, `\"`)+`"`)
	}
	return all
}

func listed[T any](all []string, word string, values []T) []string {
	for i, v := range values {
		if i == 0 {
			all = append(all, word)
		}
		all = append(all, fmt.Sprint(v))
	}
	return all
}
