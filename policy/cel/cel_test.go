package cel

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/postern-link/postern/link"
	"github.com/postern-link/postern/policy"
)

// flow is a Friday evening in Berlin, which is 17:30 UTC.
func flow() policy.Facts {
	return policy.Facts{
		Endpoint: &link.Endpoint{ID: "sql-corp", Network: "corp", Tenant: "contoso", Connection: link.Connection{LinkID: 0x210045c1}},
		Service:  &link.Service{ID: "sql", Tenant: "fabrikam"},
		Source:   netip.MustParseAddrPort("10.1.2.3:40000"),
		Port:     1433,
		Name:     "contoso.database.windows.net",
		At:       time.Date(2026, 1, 16, 17, 30, 0, 0, time.UTC),
	}
}

func TestHolds(t *testing.T) {
	const name, at = policy.UsesName, policy.UsesTime
	tests := []struct {
		text  string
		holds bool
		uses  policy.Uses
	}{
		{`true`, true, 0},
		{`cidr('10.1.0.0/16').containsIP(source)`, true, 0},
		{`cidr('10.2.0.0/16').containsIP(source)`, false, 0},
		{`source == ip('10.1.2.3') && source_port > 1023`, true, policy.UsesPort},
		{`source.family() == 4 && string(source).startsWith('10.')`, true, 0},
		{`port in [1433, 5432]`, true, 0},
		{`endpoint == 'sql-corp' && service == 'sql' && network == 'corp'`, true, 0},
		{`tenant == service_tenant`, false, 0},
		{`link_id == 0x210045c1`, true, 0},
		{`name == 'contoso.database.windows.net'`, true, name},
		{`name.endsWith('.windows.net') || port == 1`, true, name},
		{`name.matches('^c[a-z]+[.]database[.]')`, true, name},
		{`size(name) < 52`, true, name},
		{`time < timestamp('2027-01-01T00:00:00Z')`, true, at},
		{`time.getHours() == 17 && time.getHours('Europe/Berlin') == 18`, true, at},
		{`time.getDayOfWeek('Pacific/Auckland') == 6`, true, at}, // it is Saturday there
		{`time.getMonth('UTC') == 0 && time.getDayOfMonth('UTC') == 15 && time.getDate('UTC') == 16 && time.getDayOfYear('UTC') == 15`, true, at},
		{`time.getFullYear('UTC') == 2026 && time.getMinutes('UTC') == 30 && time.getSeconds('UTC') == 0 && time.getMilliseconds('UTC') == 0`, true, at},
		{`name == '' || time.getHours() > 20`, false, name | at},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			e, err := Compile(test.text)
			if err != nil {
				t.Fatal(err)
			}
			holds, err := e.Holds(flow())
			if err != nil || holds != test.holds || e.Uses() != test.uses || e.String() != test.text {
				t.Errorf("%v, %v, uses %b of %s; want %v, uses %b", holds, err, e.Uses(), e, test.holds, test.uses)
			}
		})
	}
}

func TestCompileRefuses(t *testing.T) {
	tests := []struct{ name, text, says string }{
		{"nothing", ``, "column 1"},
		{"syntax", `source ==`, "column 10"},
		{"unknown variable", `src == '1'`, "undeclared reference to 'src'"},
		{"not bool", `port + 1`, "of type int"},
		{"dynamic", `dyn(true)`, "of type dyn"},
		{"types", `port == '443'`, "no matching overload"},
		{"source is an address", `source == '10.1.2.3'`, "no matching overload"},
		{"not a prefix", `cidr('10.1.0.0/33').containsIP(source)`, "column"},
		{"not an address", `source == ip('10.1.2')`, "column"},
		{"regular expression", `name.matches('(')`, "column"},
		{"huge regular expression", `name.matches('((a{100}){100}){100}')`, "column"},
		{"loop", `['a', 'b'].exists(x, name == x)`, "undeclared reference"},
		{"zone", `time.getHours('Europe/Atlantis') == 1`, "not a time zone"},
		{"zone from the outside", `time.getHours(name) == 1`, "must be a text"},
		{"zone of the machine", `time.getHours('Local') == 1`, "not a time zone"},
		{"a path for a zone", `time.getHours('../../etc/passwd') == 1`, "not a time zone"},
		{"too long", strings.Repeat(" ", maxText) + "true", "4096 are allowed"},
		{"too deep", strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500), ""},
		{"too expensive", strings.Repeat("(name + name + name + name).matches('a*b*c*d*e*f*g*h*i*j*k*l*m*n*') || ", 50) + "false", "allowed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, err := Compile(test.text)
			if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, %v; want an error with %q", e, err, test.says)
			}
		})
	}
}

// An error at the time of the flow is an error, and neither true nor false nor a panic.
func TestHoldsFails(t *testing.T) {
	for _, text := range []string{`int(name) > 1`, `1 / (port - 1433) > 0`, `[1, 2][port] == 1`, `ip(name) == source`,
		`{'a': true}[name]`, `timestamp(name) < time`, `9223372036854775807 + port > 0`} {
		e, err := Compile(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if holds, err := e.Holds(flow()); err == nil {
			t.Errorf("%s: %v without an error", text, holds)
		}
	}
}

// What is compiled can't cost more than the bound, also where the estimate is lower than the truth.
func TestCostOverrun(t *testing.T) {
	e, err := Compile(`name.matches('a*b') || name.contains('x')`)
	if err != nil {
		t.Fatal(err)
	}
	f := flow()
	f.Name = link.Name(strings.Repeat("a", 1<<20)) // longer than a name can be
	if _, err := e.Holds(f); err == nil || !strings.Contains(err.Error(), "cost limit") {
		t.Errorf("error %v, want that of the cost", err)
	}
}

// What the manual lists is what there is.
func TestVariables(t *testing.T) {
	f := &facts{flow()}
	for _, v := range Variables() {
		if _, ok := f.ResolveName(v[0]); !ok {
			t.Errorf("variable %s of type %s has no value", v[0], v[1])
		}
	}
	if v, ok := f.ResolveName("password"); ok {
		t.Errorf("password is %v", v)
	}
}

// C09, X27: whatever the text, Compile returns, and so does what it compiled.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{`true`, `cidr('10.0.0.0/8').containsIP(source) && name != ''`, `time.getHours('UTC') > 1`, `((((`,
		`[1,2,3][port] == 1`, `"\xff"`, `name.matches('a{1000}')`, `{}.a.b.c`, `b'a' == b'b'`, `1 ? 2 : 3`, `a.all(x, true)`, "\"\"\"", `-9223372036854775808`,
		`duration('1s') + time > time`, `type(name) == string`, `source.isLoopback() || ip.isCanonical(name)`, `google.protobuf.Duration{seconds: 1} == duration('1s')`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Compile(text)
		if err != nil {
			return
		}
		began := time.Now()
		_, _ = e.Holds(flow())
		if took := time.Since(began); took > time.Second {
			t.Errorf("%q took %v", text, took)
		}
	})
}

func BenchmarkHolds(b *testing.B) {
	for _, text := range []string{`cidr('10.1.0.0/16').containsIP(source)`, `name.endsWith('.windows.net') && port == 1433`,
		`time.getHours('Europe/Berlin') < 20`, `name.matches('^c[a-z]+[.]database[.]')`} {
		b.Run(text, func(b *testing.B) {
			e, err := Compile(text)
			if err != nil {
				b.Fatal(err)
			}
			f := flow()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Holds(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
