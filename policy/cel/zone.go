package cel

import (
	"fmt"
	"sync"
	"time"
	_ "time/tzdata" // a static binary runs where no zones are installed

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// accessors are the parts of a time in a zone. The library reads the zone from a file at each call, which no
// flow should wait for: ours keep it.
var accessors = []struct {
	function, overload string
	get                func(time.Time) int
}{
	{overloads.TimeGetFullYear, overloads.TimestampToYearWithTz, time.Time.Year},
	{overloads.TimeGetMonth, overloads.TimestampToMonthWithTz, func(t time.Time) int { return int(t.Month()) - 1 }},
	{overloads.TimeGetDayOfYear, overloads.TimestampToDayOfYearWithTz, func(t time.Time) int { return t.YearDay() - 1 }},
	{overloads.TimeGetDayOfMonth, overloads.TimestampToDayOfMonthZeroBasedWithTz, func(t time.Time) int { return t.Day() - 1 }},
	{overloads.TimeGetDate, overloads.TimestampToDayOfMonthOneBasedWithTz, time.Time.Day},
	{overloads.TimeGetDayOfWeek, overloads.TimestampToDayOfWeekWithTz, func(t time.Time) int { return int(t.Weekday()) }},
	{overloads.TimeGetHours, overloads.TimestampToHoursWithTz, time.Time.Hour},
	{overloads.TimeGetMinutes, overloads.TimestampToMinutesWithTz, time.Time.Minute},
	{overloads.TimeGetSeconds, overloads.TimestampToSecondsWithTz, time.Time.Second},
	{overloads.TimeGetMilliseconds, overloads.TimestampToMillisecondsWithTz, func(t time.Time) int { return t.Nanosecond() / 1e6 }},
}

// zoned returns the accessors as options of an environment.
func zoned() (options []cel.EnvOption) {
	for _, a := range accessors {
		options = append(options, cel.Function(a.function, cel.MemberOverload(a.overload,
			[]*cel.Type{cel.TimestampType, cel.StringType}, cel.IntType, cel.BinaryBinding(func(at, zone ref.Val) ref.Val {
				l, err := location(string(zone.(types.String)))
				if err != nil {
					return types.WrapErr(err)
				}
				return types.Int(a.get(at.(types.Timestamp).In(l)))
			}))))
	}
	return options
}

// zones refuses a zone that isn't written down, so that each was looked up before a flow comes.
func zones(a *cel.Ast) (err error) {
	calls(a, func(function string, args []ast.Expr) {
		for _, z := range accessors {
			if z.function != function || len(args) != 1 || err != nil {
				continue
			}
			name, is := literal(args[0])
			if !is {
				err = fmt.Errorf("%s: the zone must be a text such as 'Europe/Berlin'", function)
				return
			}
			_, err = location(name)
		}
	})
	return err
}

func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, is := e.AsLiteral().Value().(string)
	return s, is
}

// locations are the zones that expressions name, by name. There are some hundreds at most.
var locations sync.Map

// location returns the zone of a name in the IANA database, such as "Europe/Berlin".
func location(name string) (*time.Location, error) {
	if l, ok := locations.Load(name); ok {
		return l.(*time.Location), nil
	}
	l, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return nil, fmt.Errorf("%q is not a time zone; one looks like 'Europe/Berlin'", name)
	}
	locations.Store(name, l)
	return l, nil
}
