//! Which file imports from which: the modules of a crate, and its `use` paths resolved to the files
//! that define what they name.
//!
//! `mod` lines and re-exports (`pub use`) are no imports, and tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, UseTree, Visibility};

/// Names from the root of the crate.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    defined: BTreeSet<String>,
    /// Re-exported names, and the paths they stand for, relative to this module.
    exported: BTreeMap<String, Vec<String>>,
    /// Modules of which everything is re-exported.
    globs: Vec<Vec<String>>,
    imports: Vec<Vec<String>>,
    /// Files of tests, which are no modules here.
    tests: Vec<PathBuf>,
}

/// The files of a crate and the imports between them.
pub(crate) struct Imports {
    /// File to file, with one of the paths that say so.
    pub(crate) edges: BTreeMap<PathBuf, BTreeMap<PathBuf, String>>,
    /// Every file that a `mod` line names, and the root.
    pub(crate) files: BTreeSet<PathBuf>,
}

impl Imports {
    /// Reads the crate whose root module is the file `root`.
    pub(crate) fn of(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        read_file(root, vec![], true, &mut modules);
        let mut edges: BTreeMap<PathBuf, BTreeMap<PathBuf, String>> = BTreeMap::new();
        for (at, module) in &modules {
            for path in &module.imports {
                let Some(target) = resolve(&modules, at, path, 0) else {
                    continue; // another crate's
                };
                if target != module.file {
                    let from = edges.entry(module.file.clone()).or_default();
                    from.entry(target).or_insert_with(|| path.join("::"));
                }
            }
        }
        let mut files = BTreeSet::new();
        for module in modules.into_values() {
            files.insert(module.file);
            files.extend(module.tests);
        }
        Self { edges, files }
    }

    /// Groups of files each of which imports, over others, itself.
    pub(crate) fn rings(&self) -> Vec<Vec<PathBuf>> {
        let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
            self.files.iter().map(|f| (f, self.reachable(f))).collect();
        let mut rings: Vec<Vec<PathBuf>> = vec![];
        for file in &self.files {
            let together =
                |other: &&PathBuf| reach[file].contains(other) && reach[other].contains(file);
            let ring: Vec<PathBuf> = self.files.iter().filter(together).cloned().collect();
            if !ring.is_empty() && !rings.contains(&ring) {
                rings.push(ring);
            }
        }
        rings
    }

    fn reachable<'a>(&'a self, from: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for target in self.edges.get(file).into_iter().flatten().map(|(t, _)| t) {
                if seen.insert(target) {
                    next.push(target);
                }
            }
        }
        seen
    }
}

fn read_file(
    file: &Path,
    at: ModulePath,
    owns_folder: bool,
    out: &mut BTreeMap<ModulePath, Module>,
) {
    let text = std::fs::read_to_string(file).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let folder = match owns_folder {
        true => file.parent().unwrap().to_owned(),
        false => file.with_extension(""),
    };
    read_items(file, &folder, parsed.items, at, out);
}

fn read_items(
    file: &Path,
    folder: &Path,
    items: Vec<Item>,
    at: ModulePath,
    out: &mut BTreeMap<ModulePath, Module>,
) {
    let mut module = Module {
        file: file.to_owned(),
        ..Module::default()
    };
    for item in items {
        if item_attributes(&item).iter().any(is_test) {
            if let Item::Mod(tests) = item {
                let name = tests.ident;
                module.tests.push(folder.join(format!("{name}.rs")));
                module
                    .tests
                    .push(folder.join(name.to_string()).join("mod.rs"));
            }
            continue;
        }
        match item {
            Item::Mod(inner) => {
                let name = inner.ident.to_string();
                module.children.insert(name.clone());
                let mut below = at.clone();
                below.push(name.clone());
                match inner.content {
                    Some((_, items)) => read_items(file, &folder.join(&name), items, below, out),
                    None => {
                        let flat = folder.join(format!("{name}.rs"));
                        match flat.exists() {
                            true => read_file(&flat, below, false, out),
                            false => {
                                read_file(&folder.join(&name).join("mod.rs"), below, true, out)
                            }
                        }
                    }
                }
            }
            Item::Use(item) => {
                let mut paths = vec![];
                flatten(&item.tree, vec![], &mut paths);
                let exports = !matches!(item.vis, Visibility::Inherited);
                for (path, name) in paths {
                    match (exports, name) {
                        (false, _) => module.imports.push(path),
                        (true, Some(name)) => drop(module.exported.insert(name, path)),
                        (true, None) => module.globs.push(path),
                    }
                }
            }
            other => module.defined.extend(name_of(&other)),
        }
    }
    out.insert(at, module);
}

/// The paths of a use tree with the names they get; no name for `*`.
fn flatten(tree: &UseTree, before: Vec<String>, out: &mut Vec<(Vec<String>, Option<String>)>) {
    let with = |name: String| {
        let mut path = before.clone();
        if name != "self" || path.is_empty() {
            path.push(name);
        }
        path
    };
    match tree {
        UseTree::Path(path) => flatten(&path.tree, with(path.ident.to_string()), out),
        UseTree::Name(name) => {
            let path = with(name.ident.to_string());
            let last = path.last().cloned();
            out.push((path, last));
        }
        UseTree::Rename(name) => {
            let path = with(name.ident.to_string());
            out.push((path, Some(name.rename.to_string())));
        }
        UseTree::Glob(_) => out.push((before, None)),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, before.clone(), out);
            }
        }
    }
}

/// The file that defines what `path`, written in the module `at`, names.
fn resolve(
    modules: &BTreeMap<ModulePath, Module>,
    at: &ModulePath,
    path: &[String],
    depth: usize,
) -> Option<PathBuf> {
    assert!(depth < 32, "{path:?} in {at:?} goes round in circles");
    let mut here = at.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            here.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|s| s == "super") {
                here.pop()?;
                rest = &rest[1..];
            }
        }
        first => {
            let module = &modules[&here];
            let known = module.children.contains(first)
                || module.defined.contains(first)
                || module.exported.contains_key(first);
            if !known {
                return None;
            }
        }
    }
    while let Some((name, more)) = rest.split_first() {
        let module = &modules[&here];
        if module.children.contains(name) {
            here.push(name.clone());
        } else if module.defined.contains(name) {
            return Some(module.file.clone());
        } else if let Some(target) = module.exported.get(name) {
            let full: Vec<String> = target.iter().chain(more).cloned().collect();
            return resolve(modules, &here, &full, depth + 1);
        } else {
            let found = module.globs.iter().find_map(|glob| {
                let full: Vec<String> = glob.iter().chain(rest).cloned().collect();
                resolve(modules, &here, &full, depth + 1)
            });
            return found.or_else(|| Some(module.file.clone()));
        }
        rest = more;
    }
    Some(modules[&here].file.clone())
}

fn is_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Ident>()
            .is_ok_and(|ident| ident == "test")
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Const(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(i) => &i.ident,
        Item::Enum(i) => &i.ident,
        Item::Fn(i) => &i.sig.ident,
        Item::Static(i) => &i.ident,
        Item::Struct(i) => &i.ident,
        Item::Trait(i) => &i.ident,
        Item::Type(i) => &i.ident,
        Item::Union(i) => &i.ident,
        Item::Macro(i) => i.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}
