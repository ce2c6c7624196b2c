package external

import "strings"

// unprotected says what of the sandbox this machine can't have, "" where it has all.
func unprotected() string {
	var lacks []string
	switch v := landlockVersion(); {
	case v == 0:
		lacks = append(lacks, "landlock (files can be read as far as the program's user may)")
	case v < 6:
		lacks = append(lacks, "a newer landlock (signals and abstract sockets)")
	}
	if auditArch == 0 {
		lacks = append(lacks, "a filter of system calls for this architecture (other sockets, other processes)")
	}
	return strings.Join(lacks, ", ")
}
