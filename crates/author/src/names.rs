//! The names a script can use, asked of a VM: what this says is there, is there.

use std::collections::{BTreeMap, BTreeSet};

use lua::{Answer, Host, LogLevel, Protocol, Tick, Vm};

/// Globals by name; of a library, its members.
#[derive(Clone, Debug)]
pub struct Names {
    globals: BTreeMap<String, BTreeSet<String>>,
}

/// Lists the globals, and members as `library.member`.
const LIST: &[u8] = b"
local names = { 'KEYS', 'ARGV' }
for name, value in pairs(_G) do
  names[#names + 1] = name
  if type(value) == 'table' and name ~= '_G' and name ~= 'KEYS' and name ~= 'ARGV' then
    for member in pairs(value) do
      names[#names + 1] = name .. '.' .. member
    end
  end
end
return table.concat(names, ' ')";

impl Names {
    pub fn of(vm: &mut Vm) -> Names {
        let mut globals: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut reply = Vec::new();
        if let Ok(script) = vm.compile(LIST) {
            vm.run(&mut Nobody, &script, &[], &[], Protocol::Resp2, &mut reply);
        }
        // One bulk: its length stands on a line of its own.
        let text = String::from_utf8_lossy(&reply);
        for name in text.split_whitespace().filter(|word| !word.starts_with('$')) {
            let (global, member) = name.split_once('.').unwrap_or((name, ""));
            let members = globals.entry(global.to_owned()).or_default();
            if !member.is_empty() {
                members.insert(member.to_owned());
            }
        }
        Names { globals }
    }

    /// These and more globals.
    pub fn with(&self, globals: &[&str]) -> Names {
        let mut names = self.clone();
        names.globals.extend(globals.iter().map(|name| (name.to_string(), BTreeSet::new())));
        names
    }

    /// Those of a library of functions: these get their keys and arguments as parameters.
    pub fn of_library(&self) -> Names {
        let mut names = self.clone();
        names.globals.retain(|name, _| name != "KEYS" && name != "ARGV");
        for library in ["redis", "server"] {
            if let Some(members) = names.globals.get_mut(library) {
                members.insert("register_function".to_owned());
            }
        }
        names
    }

    pub fn is_global(&self, name: &str) -> bool {
        self.globals.contains_key(name)
    }

    /// The members of a library; `None` for what is none.
    pub fn library(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.globals.get(name).filter(|members| !members.is_empty())
    }
}

/// A host without a server: the listing calls no command.
struct Nobody;

impl Host for Nobody {
    fn resolve(&mut self, _: &[u8]) -> Option<u32> {
        None
    }

    fn call(&mut self, _: u32, _: &[&[u8]], _: Protocol, answer: &mut Answer) {
        answer.encoded().extend_from_slice(b"-ERR there is no server\r\n");
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn acl_check(&mut self, _: &[&[u8]]) -> Result<bool, ()> {
        Err(())
    }

    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
}
