package link

import "testing"

func TestIsProof(t *testing.T) {
	for name, want := range map[string]bool{
		"_postern": true, "_postern.contoso.example": true, "_postern.a": true,
		"": false, "_postern2.contoso.example": false, "_posterns": false, "x._postern.contoso.example": false, "*.contoso.example": false, "_poster.n": false,
	} {
		if IsProof(name) != want || IsProof([]byte(name)) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
