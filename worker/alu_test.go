package worker

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestWidthsAreVectorCode disassembles the bodies of alu_hot: each multiplies in
// four chains, in registers as wide as it says and in none that are wider.
func TestWidthsAreVectorCode(t *testing.T) {
	for _, arch := range []struct {
		name   string
		dump   []string
		suffix string // of the symbol of a body
		bodies [][3]string
	}{
		{"amd64", []string{"objdump", "--no-show-raw-insn", "--disassemble=github.com/guestinit/guestinit/worker."}, ".abi0", [][3]string{
			{"aluScalar64", `imul +%r8,%r(ax|bx|si|di)\b`, `%[xyz]mm`},
			{"aluVec128", `pmuludq %xmm4,%xmm[0-3]\b`, `%[yz]mm`},
			{"aluVec256", `vpmuludq %ymm4,%ymm[0-3],%ymm[0-3]\b`, `%zmm`},
			{"aluVec512", `vpmuludq %zmm4,%zmm[0-3],%zmm[0-3]\b`, `%[xy]mm`},
		}},
		{"arm64", []string{"go", "tool", "objdump", "-s="}, "", [][3]string{
			{"aluScalar64", `MADD R1, R2, R[3-6], R[3-6]`, `V[0-9]+\.`},
			{"aluVec128", `VFMLA V4\.D2, V4\.D2, V[0-3]\.D2`, `\bZ[0-9]+\.`},
		}},
	} {
		t.Run(arch.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "guestinit")
			build := exec.Command("go", "build", "-o", path, program)
			build.Env = append(os.Environ(), "GOARCH="+arch.name, "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("build: %v\n%s", err, out)
			}
			for _, b := range arch.bodies {
				dump := append(slices.Clone(arch.dump), path)
				dump[len(dump)-2] += b[0] + arch.suffix
				checkBody(t, b[0], b[1], b[2], dump)
			}
		})
	}
}

// checkBody disassembles a body and looks for what multiplies, and for registers
// that are wider.
func checkBody(t *testing.T, body, multiply, wider string, command []string) {
	t.Helper()
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		t.Fatalf("%s: %v; try: scripts/install-tools.sh objdump", strings.Join(command, " "), err)
	}
	if n := len(regexp.MustCompile(multiply).FindAll(out, -1)); n != 4 {
		t.Errorf("%s multiplies %d times a step, want 4:\n%s", body, n, out)
	}
	if m := regexp.MustCompile(wider).Find(out); m != nil {
		t.Errorf("%s uses %s:\n%s", body, m, out)
	}
}
