package handover

import (
	"context"
	golog "log"
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
	attrs := h.attrsOf(nil, r)
	if r.Level >= slog.LevelInfo && r.Level < slog.LevelWarn && clog.IsJSON() {
		clog.InfoAttrs(r.Message, append([]slog.Attr{slog.String("plugin", h.plugin)}, attrs...)...)
		return nil
	}
	line := string(appendLine(nil, r.Message, attrs))
	switch {
	case r.Level >= slog.LevelError:
		h.out.Error(line)
	case r.Level >= slog.LevelWarn:
		h.out.Warning(line)
	case r.Level >= slog.LevelInfo:
		h.out.Info(line)
	default:
		h.out.Debug(line)
	}
	return nil
}

// HandleAll handles records one after the other. Those that CoreDNS would log as lines with nothing in front of its own are
// written together.
func (h *logHandler) HandleAll(ctx context.Context, records []slog.Record) error {
	if len(records) < 2 || clog.IsJSON() || golog.Flags() != 0 || golog.Prefix() != "" {
		return h.handleEach(ctx, records)
	}
	lines := make([]byte, 0, len(records)*lineSize)
	var attrs []slog.Attr
	for i, r := range records {
		if r.Level < slog.LevelInfo || r.Level >= slog.LevelWarn {
			h.print(lines)
			return h.handleEach(ctx, records[i:])
		}
		attrs = h.attrsOf(attrs[:0], r)
		lines = append(append(append(lines, "[INFO] plugin/"...), h.plugin...), ": "...)
		lines = append(appendLine(lines, r.Message, attrs), '\n')
	}
	h.print(lines)
	return nil
}

// lineSize is about how long the line of a flow is, in bytes.
const lineSize = 512

func (h *logHandler) handleEach(ctx context.Context, records []slog.Record) error {
	for _, r := range records {
		_ = h.Handle(ctx, r)
	}
	return nil
}

func (h *logHandler) print(lines []byte) {
	if len(lines) > 0 {
		golog.Print(string(lines))
	}
}

// attrsOf appends the attributes of a record, with those that it has from the handler.
func (h *logHandler) attrsOf(attrs []slog.Attr, r slog.Record) []slog.Attr {
	attrs = append(attrs, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = flatten(attrs, h.group, a)
		return true
	})
	return attrs
}

// appendLine appends a message and what is to be said with it.
func appendLine(b []byte, message string, attrs []slog.Attr) []byte {
	b = append(b, message...)
	for _, a := range attrs {
		b = append(appendQuoted(append(b, ' '), a.Key), '=')
		switch a.Value.Kind() {
		case slog.KindInt64:
			b = strconv.AppendInt(b, a.Value.Int64(), 10)
		default:
			b = appendQuoted(b, a.Value.String())
		}
	}
	return b
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

// appendQuoted appends s as it is where it is one plain word: what came from outside can't forge a field or a line.
func appendQuoted(b []byte, s string) []byte {
	if isWord(s) {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

func isWord(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == '"' || c == '=' || c >= 0x7f {
			return c >= 0x80 && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
				return r <= ' ' || r == '"' || r == '=' || r == 0x7f || !strconv.IsPrint(r)
			})
		}
	}
	return s != ""
}
