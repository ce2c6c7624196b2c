package armapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/postern-link/postern/link"
)

// The records of a set, one field a type. The domain keeps each record as a line of a zone file.
type recordData struct {
	A     []aRecord    `json:"aRecords,omitzero"`
	AAAA  []aaaaRecord `json:"aaaaRecords,omitzero"`
	CNAME *cnameRecord `json:"cnameRecord,omitempty"`
	MX    []mxRecord   `json:"mxRecords,omitzero"`
	PTR   []ptrRecord  `json:"ptrRecords,omitzero"`
	SOA   *soaRecord   `json:"soaRecord,omitempty"`
	SRV   []srvRecord  `json:"srvRecords,omitzero"`
	TXT   []txtRecord  `json:"txtRecords,omitzero"`
}

type aRecord struct {
	Address string `json:"ipv4Address"`
}

type aaaaRecord struct {
	Address string `json:"ipv6Address"`
}

type cnameRecord struct {
	Target string `json:"cname"`
}

type mxRecord struct {
	Preference int64  `json:"preference"`
	Exchange   string `json:"exchange"`
}

type ptrRecord struct {
	Target string `json:"ptrdname"`
}

type srvRecord struct {
	Priority int64  `json:"priority"`
	Weight   int64  `json:"weight"`
	Port     int64  `json:"port"`
	Target   string `json:"target"`
}

type txtRecord struct {
	Value []string `json:"value"`
}

type soaRecord struct {
	Host    string `json:"host"`
	Email   string `json:"email"`
	Serial  *int64 `json:"serialNumber"`
	Refresh *int64 `json:"refreshTime"`
	Retry   *int64 `json:"retryTime"`
	Expire  *int64 `json:"expireTime"`
	Minimum *int64 `json:"minimumTtl"`
}

// lines returns the records of a type as the domain has them; given is false where the input has none of
// the type. soa is that of the zone as it is. The error is 400.
func (d *recordData) lines(rtype, soa string) (lines []string, given bool, err error) {
	if other := d.others(rtype); other != "" {
		return nil, false, fail(http.StatusBadRequest, "InvalidRequestFormat", "The field 'properties.%s' is none of a record set of type %s.", other, rtype)
	}
	switch rtype {
	case "A":
		given = d.A != nil
		for _, v := range d.A {
			lines = append(lines, v.Address)
		}
	case "AAAA":
		given = d.AAAA != nil
		for _, v := range d.AAAA {
			lines = append(lines, v.Address)
		}
	case "CNAME":
		if given = d.CNAME != nil; given {
			lines = []string{d.CNAME.Target}
		}
	case "MX":
		given = d.MX != nil
		for _, v := range d.MX {
			lines = append(lines, fmt.Sprintf("%d %s", v.Preference, oneWord(v.Exchange)))
		}
	case "PTR":
		given = d.PTR != nil
		for _, v := range d.PTR {
			lines = append(lines, v.Target)
		}
	case "SOA":
		if given = d.SOA != nil; given {
			lines = []string{d.SOA.line(soa)}
		}
	case "SRV":
		given = d.SRV != nil
		for _, v := range d.SRV {
			lines = append(lines, fmt.Sprintf("%d %d %d %s", v.Priority, v.Weight, v.Port, oneWord(v.Target)))
		}
	case "TXT":
		given = d.TXT != nil
		for _, v := range d.TXT {
			lines = append(lines, link.FormatText(v.Value))
		}
	}
	for i := range lines {
		if lines[i], err = link.ParseRecord(rtype, lines[i]); err != nil {
			return nil, false, err
		}
	}
	return lines, given, nil
}

// oneWord keeps a name from being read as several fields.
func oneWord(s string) string {
	if strings.ContainsAny(s, " \t\r\n\v\f\u0085\u00a0") || s == "" {
		return "(invalid)"
	}
	return s
}

// others returns a field with records of another type, "" where there is none.
func (d *recordData) others(rtype string) string {
	for _, f := range []struct {
		rtype, field string
		there        bool
	}{
		{"A", "aRecords", len(d.A) > 0}, {"AAAA", "aaaaRecords", len(d.AAAA) > 0}, {"CNAME", "cnameRecord", d.CNAME != nil},
		{"MX", "mxRecords", len(d.MX) > 0}, {"PTR", "ptrRecords", len(d.PTR) > 0}, {"SOA", "soaRecord", d.SOA != nil},
		{"SRV", "srvRecords", len(d.SRV) > 0}, {"TXT", "txtRecords", len(d.TXT) > 0},
	} {
		if f.there && f.rtype != rtype {
			return f.field
		}
	}
	return ""
}

// line returns the SOA as the domain has it. What it leaves out stays as it is.
func (r *soaRecord) line(now string) string {
	f := strings.Fields(now)
	for i, s := range []string{r.Host, r.Email} {
		if s != "" {
			f[i] = oneWord(s)
		}
	}
	for i, n := range []*int64{r.Serial, r.Refresh, r.Retry, r.Expire, r.Minimum} {
		if n != nil {
			f[2+i] = strconv.FormatInt(*n, 10)
		}
	}
	return strings.Join(f, " ")
}

// dataOf returns records as they are shown: names without the final dot, as they are sent.
func dataOf(rtype string, lines []string) recordData {
	var d recordData
	switch rtype {
	case "A":
		d.A = []aRecord{}
	case "AAAA":
		d.AAAA = []aaaaRecord{}
	case "MX":
		d.MX = []mxRecord{}
	case "PTR":
		d.PTR = []ptrRecord{}
	case "SRV":
		d.SRV = []srvRecord{}
	case "TXT":
		d.TXT = []txtRecord{}
	}
	for _, line := range lines {
		f := strings.Fields(line)
		last := f[len(f)-1]
		if last != "." {
			last = strings.TrimSuffix(last, ".")
		}
		switch rtype {
		case "A":
			d.A = append(d.A, aRecord{line})
		case "AAAA":
			d.AAAA = append(d.AAAA, aaaaRecord{line})
		case "CNAME":
			d.CNAME = &cnameRecord{last}
		case "MX":
			d.MX = append(d.MX, mxRecord{*number(f[0]), last})
		case "PTR":
			d.PTR = append(d.PTR, ptrRecord{last})
		case "SOA":
			d.SOA = &soaRecord{strings.TrimSuffix(f[0], "."), strings.TrimSuffix(f[1], "."), number(f[2]), number(f[3]), number(f[4]), number(f[5]), number(f[6])}
		case "SRV":
			d.SRV = append(d.SRV, srvRecord{*number(f[0]), *number(f[1]), *number(f[2]), last})
		case "TXT":
			text, _ := link.ParseText(line) // in canonical form
			d.TXT = append(d.TXT, txtRecord{text})
		}
	}
	return d
}

// number reads a field of a record, which is in canonical form.
func number(s string) *int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return &n
}
