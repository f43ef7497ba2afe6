//! How a store is: what the next boot would say of it.

use rocstate::ErrorKind;
use rocstate::inspect::{Inspector, Outlook, Snapshot};

use crate::exit::{Done, Exit};

/// What the next boot would do, or why it would refuse.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) outlook: Option<Outlook>,
    /// The state that it would come to, or else as much as can be read.
    pub(crate) state: Option<Snapshot>,
    pub(crate) exit: Exit,
    /// What is wrong, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// Asks the code that boots.
pub(crate) fn health(files: &Inspector) -> Done<Health> {
    match files.next_boot() {
        Ok((outlook, state)) => {
            let exit = if outlook.healed.is_empty() { Exit::Fine } else { Exit::Repairable };
            let (notes, state) = (outlook.healed.clone(), Some(state));
            Ok(Health { notes, outlook: Some(outlook), state, exit })
        }
        Err(error) if error.kind() == ErrorKind::Damaged => {
            let state = files.snapshot(None).ok();
            Ok(Health { outlook: None, state, exit: Exit::Lost, notes: vec![error.to_string()] })
        }
        Err(error) => Err(error.into()),
    }
}

impl Health {
    pub(crate) fn word(&self) -> &'static str {
        match self.exit {
            Exit::Fine => "good",
            Exit::Repairable => {
                "damaged; the next boot repairs it, and nothing acknowledged is lost"
            }
            _ => "damaged; the store cannot be opened",
        }
    }
}
