package confine

import (
	"slices"
	"testing"
)

func TestParseStatus(t *testing.T) {
	const rest = "Name:\tpostern\nUmask:\t0077\nCapInh:\t0000000000000000\n"
	for _, c := range []struct {
		name, text string
		want       Privileges
		beyond     []string
		bad        bool
	}{
		{name: "none", text: rest + "Uid:\t65534\t65534\t65534\t65534\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t0\n"},
		{name: "ports", text: rest + "Uid:\t65534\t65534\t65534\t65534\nCapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nNoNewPrivs:\t1\n",
			want: Privileges{Capabilities: 1 << 10, NoNewPrivs: true}},
		{name: "more, permitted only", text: "Uid:\t7\t7\t7\t7\nCapPrm:\t0000000000201400\nCapEff:\t0000000000000400\nNoNewPrivs:\t1\n",
			want: Privileges{Capabilities: 1<<21 | 1<<12 | 1<<10, NoNewPrivs: true}, beyond: []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}},
		{name: "effective user is root", text: "Uid:\t7\t0\t7\t7\nCapPrm:\t0\nCapEff:\t8000000000000000\nNoNewPrivs:\t0\n",
			want: Privileges{Root: true, Capabilities: 1 << 63}, beyond: []string{"CAP_63"}},
		{name: "a line is missing", text: "Uid:\t7\t7\t7\t7\nCapPrm:\t0\nNoNewPrivs:\t0\n", bad: true},
		{name: "no number", text: "Uid:\t7\t7\t7\t7\nCapPrm:\tx\nCapEff:\t0\nNoNewPrivs:\t0\n", bad: true},
		{name: "no user", text: "Uid:\nCapPrm:\t0\nCapEff:\t0\nNoNewPrivs:\t0\n", bad: true},
		{name: "empty", bad: true},
	} {
		p, err := parseStatus(c.text)
		if (err != nil) != c.bad || p != c.want {
			t.Errorf("%s: %+v, %v", c.name, p, err)
		}
		if got := p.Beyond("CAP_NET_BIND_SERVICE"); !slices.Equal(got, c.beyond) {
			t.Errorf("%s: beyond %v, want %v", c.name, got, c.beyond)
		}
	}
}
