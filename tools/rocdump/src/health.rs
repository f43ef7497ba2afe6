//! How a store is: what the next boot would say of it.

use rocstate::ErrorKind;
use rocstate::inspect::Outlook;

use crate::exit::{Done, Exit};
use crate::store::Opened;

/// What the next boot would do, or why it would refuse.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) outlook: Option<Outlook>,
    pub(crate) exit: Exit,
    /// What is wrong, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// Asks the code that boots.
pub(crate) fn health(store: &Opened<'_>) -> Done<Health> {
    match store.files.outlook() {
        Ok(outlook) => {
            let exit = if outlook.healed.is_empty() { Exit::Fine } else { Exit::Repairable };
            Ok(Health { notes: outlook.healed.clone(), outlook: Some(outlook), exit })
        }
        Err(error) if error.kind() == ErrorKind::Damaged => {
            Ok(Health { outlook: None, exit: Exit::Lost, notes: vec![error.to_string()] })
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
