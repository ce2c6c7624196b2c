package handover

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"unicode/utf8"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// NewLogger returns a logger whose records become lines of CoreDNS's log:
//
//	[INFO] plugin/NAME: message key=value key="two words"
//
// Where CoreDNS logs JSON, the attributes of INFO records are fields of their own; CoreDNS offers that
// for no other level, where they stay part of the message.
func NewLogger(plugin string) *slog.Logger {
	return slog.New(&logHandler{plugin: plugin, out: clog.NewWithPlugin(plugin)})
}

type logHandler struct {
	plugin string
	out    clog.P
	attrs  []slog.Attr // of WithAttrs, keys with their groups
	group  string      // prefix of the keys to come, with a dot at its end, or ""
}

// Enabled implements [slog.Handler].
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || clog.D.Value()
}

// Handle implements [slog.Handler].
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = flatten(attrs, h.group, a)
		return true
	})
	if r.Level >= slog.LevelInfo && r.Level < slog.LevelWarn && clog.IsJSON() {
		clog.InfoAttrs(r.Message, append([]slog.Attr{slog.String("plugin", h.plugin)}, attrs...)...)
		return nil
	}
	var line strings.Builder
	line.WriteString(r.Message)
	for _, a := range attrs {
		line.WriteByte(' ')
		line.WriteString(quote(a.Key))
		line.WriteByte('=')
		line.WriteString(quote(a.Value.String()))
	}
	switch {
	case r.Level >= slog.LevelError:
		h.out.Error(line.String())
	case r.Level >= slog.LevelWarn:
		h.out.Warning(line.String())
	case r.Level >= slog.LevelInfo:
		h.out.Info(line.String())
	default:
		h.out.Debug(line.String())
	}
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		next.attrs = flatten(next.attrs, h.group, a)
	}
	return &next
}

// WithGroup implements [slog.Handler].
func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group += name + "."
	return &next
}

// flatten appends an attribute, and those of a group with the group's name in front.
func flatten(list []slog.Attr, prefix string, a slog.Attr) []slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, b := range v.Group() {
			list = flatten(list, prefix, b)
		}
		return list
	}
	if a.Key == "" && v.Equal(slog.Value{}) {
		return list // slog: the zero Attr is ignored
	}
	return append(list, slog.Attr{Key: prefix + a.Key, Value: v})
}

// quote returns s as it is where it is one plain word: what came from outside can't forge a field or a line.
func quote(s string) string {
	plain := s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == '=' || r == 0x7f || !strconv.IsPrint(r)
	})
	if plain {
		return s
	}
	return strconv.Quote(s)
}
