//! `completions` and `man`: generated from the command line's own description.

use clap::CommandFactory;

use crate::cli::Arguments;
use crate::exit::{Done, Exit};
use crate::out::Out;

pub(crate) fn completions(shell: clap_complete::Shell, out: &mut Out<'_>) -> Done {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "rocdump", &mut text);
    out.write(&text)?;
    Ok(Exit::Fine)
}

pub(crate) fn page(out: &mut Out<'_>) -> Done {
    let mut text = Vec::new();
    let command = Arguments::command();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for verb in command.get_subcommands() {
        let name = format!("rocdump-{}", verb.get_name());
        clap_mangen::Man::new(verb.clone()).title(name).render(&mut text)?;
    }
    out.write(&text)?;
    Ok(Exit::Fine)
}
