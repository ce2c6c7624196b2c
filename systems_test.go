package main

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// declared is what files declare at the top: functions and methods with their types, other names without.
type declared map[string]string

func (d declared) add(f *ast.File) {
	for _, decl := range f.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name
			if decl.Recv != nil {
				name = strings.TrimPrefix(types.ExprString(decl.Recv.List[0].Type), "*") + "." + name
			}
			d[name] = fields(decl.Type.Params) + " " + fields(decl.Type.Results)
		case *ast.GenDecl:
			for _, s := range decl.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					d[s.Name.Name] = ""
				case *ast.ValueSpec:
					for _, n := range s.Names {
						d[n.Name] = ""
					}
				}
			}
		}
	}
}

// fields returns the types of parameters or results.
func fields(list *ast.FieldList) string {
	var all []string
	if list != nil {
		for _, f := range list.List {
			is := types.ExprString(f.Type)
			if fn, ok := f.Type.(*ast.FuncType); ok {
				is = "func" + fields(fn.Params) + " " + fields(fn.Results)
			}
			all = append(all, slices.Repeat([]string{is}, max(1, len(f.Names)))...)
		}
	}
	return "(" + strings.Join(all, ", ") + ")"
}

// TestOtherSystems: what a file for Linux declares, and is used where other systems have the code too, stands in a file for these as
// well, with the same type. Whether all of it compiles takes a compiler, and minutes.
func TestOtherSystems(t *testing.T) {
	other := build.Default
	other.GOOS, other.CgoEnabled = "darwin", false
	fset := token.NewFileSet()
	linux, rest := make(map[string]declared), make(map[string]declared) // by directory
	used := make(map[string]bool)                                       // "DIRECTORY NAME"; "DIRECTORY .NAME": it may be a method
	for dir, pkg := range packages(t) {
		linux[dir], rest[dir] = make(declared), make(declared)
		for _, name := range slices.Concat(pkg.GoFiles, pkg.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if there, err := other.MatchFile(dir, name); err != nil {
				t.Fatal(err)
			} else if !there {
				linux[dir].add(f)
				continue
			}
			rest[dir].add(f)
			var from []string
			for _, i := range f.Imports {
				if of, own := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); own {
					from = append(from, of)
				}
			}
			for _, id := range f.Unresolved {
				used[dir+" "+id.Name] = true
			}
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				x, _ := sel.X.(*ast.Ident)
				for _, of := range from {
					used[of+" ."+sel.Sel.Name] = true
					if x != nil && x.Name == path.Base(of) {
						used[of+" "+sel.Sel.Name] = true
					}
				}
				return true
			})
		}
	}
	both := 0
	for dir := range linux {
		for name, is := range linux[dir] {
			of, method, isMethod := strings.Cut(name, ".")
			_, there := rest[dir][of]
			wanted := used[dir+" "+name] || isMethod && there && token.IsExported(method) && used[dir+" ."+method]
			switch was, there := rest[dir][name]; {
			case there && was != is && was != "" && is != "":
				t.Errorf("%s: %s is %s on other systems, and %s on Linux", dir, name, was, is)
			case there:
				both++
			case wanted:
				t.Errorf("%s: %s is for Linux alone, and used on other systems", dir, name)
			}
		}
	}
	if both == 0 {
		t.Error("nothing was compared")
	}
}
