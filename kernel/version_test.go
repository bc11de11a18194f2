package kernel

import "testing"

func TestCompareVersions(t *testing.T) {
	// Each is older than the next, as dpkg --compare-versions says.
	ordered := []string{
		"", "5.10.0-9-cloud-amd64", "5.10.0-10-cloud-amd64", "6.1.0-9", "6.1.0-50",
		"6.1.170-1", "6.1.176~rc1-1", "6.1.176-1~bpo12+1", "6.1.176-1", "6.1.176-1+b1",
		"6.12.9", "6.12.57+deb12", "6.12.90+deb12", "6.12.90+deb12.1", "6.12.117+deb12", "7.2.13",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			got := compareVersions(a, b)
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compareVersions(%q, %q) = %d, with places %d and %d", a, b, got, i, j)
			}
		}
	}
	if got := compareVersions("1.007", "1.7"); got != 0 {
		t.Errorf("leading zeros count: %d", got)
	}
}

func TestMatchesVersion(t *testing.T) {
	for _, tt := range []struct {
		have, want string
		ok         bool
	}{
		{"6.1.0-50-cloud-amd64", "6.1", true},
		{"6.12.95+deb12-cloud-amd64", "6.1", false},
		{"6.12.95+deb12-cloud-amd64", "6.12", true},
		{"6.12.95+deb12-cloud-amd64", "6.12.95", true},
		{"6.12.95+deb12-cloud-amd64", "6.12.9", false},
		{"6.12.95+deb12-cloud-amd64", "6.12.95+deb12-cloud-amd64", true},
		{"6.12.95-1~bpo12+1", "6.12.95-1", true},
		{"6.12", "6.12.95", false},
		{"6.12", "", false},
	} {
		if got := matchesVersion(tt.have, tt.want); got != tt.ok {
			t.Errorf("matchesVersion(%q, %q) = %v", tt.have, tt.want, got)
		}
	}
}
