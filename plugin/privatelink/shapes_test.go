package privatelink

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packed is "NAME TYPE" as bytes, after a change.
func packed(t testing.TB, ask string, change func(m *dns.Msg)) []byte {
	t.Helper()
	m := question(ask)
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// shapes are the ways in which a question is asked.
var shapes = []struct {
	name   string
	known  bool // the table may have it
	change func(m *dns.Msg)
}{
	{"plain", true, nil},
	{"without RD", true, func(m *dns.Msg) { m.RecursionDesired = false }},
	{"CD and AD", true, func(m *dns.Msg) { m.CheckingDisabled, m.AuthenticatedData = true, true }},
	{"TC", false, func(m *dns.Msg) { m.Truncated = true }},
	{"EDNS 4096", true, func(m *dns.Msg) { m.SetEdns0(4096, false) }},
	{"EDNS 777", true, func(m *dns.Msg) { m.SetEdns0(777, false) }},
	{"EDNS 512 and DO", true, func(m *dns.Msg) { m.SetEdns0(512, true) }},
	{"EDNS 0", false, func(m *dns.Msg) { m.SetEdns0(0, false) }},
	{"unassigned flags of EDNS", false, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().Hdr.Ttl |= 0x1234 }},
	{"cookie and NSID", true, func(m *dns.Msg) {
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
	}},
	{"client subnet", true, func(m *dns.Msg) {
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(127, 2, 0, 0)}}
	}},
	{"an option that nobody knows", false, func(m *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte{1}}}
	}},
	{"EDNS version 1", false, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }},
	{"0x20", true, func(m *dns.Msg) { m.Question[0].Name = spellOddly(m.Question[0].Name) }},
	{"0x20, EDNS", true, func(m *dns.Msg) { m.Question[0].Name = spellOddly(m.Question[0].Name); m.SetEdns0(1400, true) }},
	{"class CH", false, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }},
	{"opcode NOTIFY", false, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }},
	{"opcode UPDATE", false, func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }},
	{"two questions", false, func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }},
	{"signed", false, func(m *dns.Msg) {
		m.Extra = append(m.Extra, &dns.TSIG{Hdr: dns.RR_Header{Name: "key.", Rrtype: dns.TypeTSIG, Class: dns.ClassANY}, Algorithm: dns.HmacSHA256,
			TimeSigned: 1, Fudge: 300, MACSize: 32, MAC: strings.Repeat("00", 32), OrigId: m.Id})
	}},
}

// spellOddly spells every other letter large.
func spellOddly(s string) string {
	b := []byte(s)
	for i := 0; i < len(b); i += 2 {
		b[i] = strings.ToUpper(string(b[i]))[0]
	}
	return string(b)
}
