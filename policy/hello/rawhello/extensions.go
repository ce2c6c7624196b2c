package rawhello

import "crypto/rand"

// Name is an entry of a server name list (RFC 6066 section 3), of any type and any bytes.
type Name struct {
	Type byte // 0 is a host name; there is no other
	Name string
}

// Names returns a server name extension with host names, whatever their bytes are.
func Names(names ...string) Extension {
	list := make([]Name, 0, len(names))
	for _, n := range names {
		list = append(list, Name{0, n})
	}
	return NameList(list...)
}

// NameList returns a server name extension with these entries; without any the list is empty.
func NameList(names ...Name) Extension {
	var list []byte
	for _, n := range names {
		list = append(append(list, n.Type), vector16([]byte(n.Name))...)
	}
	return Extension{ExtServerName, vector16(list)}
}

// Versions returns a supported_versions extension.
func Versions(versions ...uint16) Extension {
	list := words(versions...)
	return Extension{ExtVersions, append([]byte{byte(len(list))}, list...)}
}

// Groups returns a supported_groups extension.
func Groups(groups ...uint16) Extension { return Extension{ExtGroups, vector16(words(groups...))} }

// ALPN returns an extension with protocols of at most 255 bytes each (RFC 7301).
func ALPN(protocols ...string) Extension {
	var list []byte
	for _, p := range protocols {
		list = append(append(list, byte(len(p))), p...)
	}
	return Extension{ExtALPN, vector16(list)}
}

// ECH returns an outer ECH extension (RFC 9849 section 5) with bytes that nobody can decrypt: what a browser sends that
// has no configuration of the server, GREASE (section 6.2). Nobody can tell it from a real one.
func ECH() Extension {
	random := make([]byte, 1+32+176)
	_, _ = rand.Read(random)
	b := []byte{0, 0, 1, 0, 1, random[0]} // outer; HKDF-SHA256, AES-128-GCM; config ID
	b = append(b, vector16(random[1:33])...)
	return Extension{ExtECH, append(b, vector16(random[33:])...)}
}
