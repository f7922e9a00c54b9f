//! The chat at a terminal: a line in, a turn out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::Handle;
use protocol::text::{line as on_one_line, plain};
use protocol::{Event, Operation, SessionId, Submission};
use reedline::{DefaultPrompt, DefaultPromptSegment, Reedline, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::assemble::{self, Assembled, Setup};
use crate::cli::RunArgs;
use crate::diagnostics;
use crate::editor::Editor;
use crate::enclosure::Enclosure;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::named_folders;
use crate::paths::Paths;
use crate::render::card::{self, Decided};
use crate::render::style::Style;
use crate::render::terminal::{Answer, Terminal};
use crate::trust::{Sheet, Word};

/// Two Ctrl-C within this time leave the program.
const TWICE: Duration = Duration::from_secs(1);

type Screen = Terminal<std::io::Stdout, std::io::Stdout>;

/// A chat that runs.
struct Chat {
    handle: Handle,
    screen: Screen,
    style: Style,
    enclosure: Enclosure,
    mode: agent::Mode,
    paths: Paths,
    sent: usize,
    turns: usize,
    pressed: Option<Instant>,
    /// Orders that nobody knows the end of, once the session has ended.
    left: Option<Vec<String>>,
    /// Where texts of a call are edited.
    editor: Arc<Editor>,
}

/// What to do after a line or a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Prompt,
    Leave,
}

pub(super) async fn run(args: RunArgs, environment: Environment) -> Result<Exit, Failure> {
    let style = Style::of(&std::io::stdout(), &environment);
    let mut ask = |sheet: &Sheet| super::trust::ask(sheet, style);
    let word = if args.place.trust_once { Word::Once } else { Word::Ask(&mut ask) };
    let setup = Setup::in_place(environment, &args.place, word)?;
    diagnostics::start(&setup, args.place.verbose);
    let width = crossterm::terminal::size().map_or(100, |(columns, _)| columns.into());
    let mut screen =
        Terminal::new(std::io::stdout(), std::io::stdout(), style, width, Answer::Live, style.color);
    let mut notice = |line: String| {
        // The screen is not there yet; a notice that cannot be shown stops nothing.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{}\n", plain(&line)).as_bytes());
    };
    let assembled = assemble::session(&setup, &args.session, &args.place, true, &mut notice).await?;
    let Assembled { config, notices, enclosure } = assembled;
    let mode = config.settings.mode;
    let handle = agent::start(config)?;
    for line in notices {
        screen.note(&style.yellow(&plain(&line)))?;
    }
    let editor = Arc::new(Editor::of(&setup));
    let paths = setup.paths.clone();
    let mut chat = Chat {
        handle,
        screen,
        style,
        enclosure,
        mode,
        paths,
        sent: 0,
        turns: 0,
        pressed: None,
        left: None,
        editor,
    };
    chat.banner()?;
    chat.ready().await?;
    chat.run().await
}

impl Chat {
    fn banner(&mut self) -> std::io::Result<()> {
        let style = self.style;
        let model = &self.handle.model;
        let lines = [
            style.bold(&style.gold("ML INTERN")),
            format!("Model: {}", on_one_line(model.id())),
            style.dim(&format!(
                "Route: {} (paid by {})",
                on_one_line(model.route()),
                on_one_line(model.payer())
            )),
            style.dim(&format!(
                "Workspace: {} · wall: {} · network: {} · mode: {}",
                on_one_line(&self.handle.context.folders().workspace.display().to_string()),
                self.enclosure.label(),
                self.enclosure.network(),
                self.mode,
            )),
            style.dim("/help for commands · /model to switch · /quit to leave"),
        ];
        for line in lines {
            self.screen.note(&line)?;
        }
        if self.enclosure.grade() == wall::Grade::None {
            let line = "Commands are not confined here: each is asked for. In a container or VM say --wall external.";
            self.screen.note(&style.yellow(line))?;
        }
        if let Some(resumed) = self.handle.resumed.take() {
            self.screen.note(
                &style
                    .green(&format!("Resumed session {} with {} items", self.handle.session, resumed.items)),
            )?;
            for id in resumed.unknown_outcomes {
                self.screen.note(&style.yellow(&format!(
                    "The outcome of call {} is unknown: the program ended while it ran.",
                    on_one_line(&id)
                )))?;
            }
        }
        Ok(())
    }

    /// Shows what the session says before it takes input.
    async fn ready(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.handle.events.recv().await {
            self.screen.event(&event)?;
            if let Event::Ready { .. } = event {
                break;
            }
        }
        self.screen.clear()?;
        Ok(())
    }

    async fn run(mut self) -> Result<Exit, Failure> {
        let mut editor = Some(Reedline::create().use_bracketed_paste(true));
        loop {
            let Some(mut line_editor) = editor.take() else {
                break;
            };
            let read = tokio::task::spawn_blocking(move || {
                let prompt = DefaultPrompt::new(
                    DefaultPromptSegment::Basic(String::new()),
                    DefaultPromptSegment::Empty,
                );
                let signal = line_editor.read_line(&prompt);
                (line_editor, signal)
            });
            let (line_editor, signal) = read.await.map_err(anyhow::Error::from)?;
            editor = Some(line_editor);
            let next = match signal? {
                Signal::Success(line) => {
                    self.pressed = None;
                    self.line(line.trim()).await?
                }
                Signal::CtrlC => self.pressed_again("ctrl + c again to quit")?,
                _ => Next::Leave,
            };
            if next == Next::Leave {
                break;
            }
        }
        self.leave().await
    }

    /// Whether this is the second press in a short time; shows the hint if it is the first.
    fn pressed_again(&mut self, hint: &str) -> std::io::Result<Next> {
        if self.pressed.replace(Instant::now()).is_some_and(|before| before.elapsed() < TWICE) {
            return Ok(Next::Leave);
        }
        self.screen.note(&self.style.dim(hint))?;
        Ok(Next::Prompt)
    }

    async fn line(&mut self, line: &str) -> Result<Next, Failure> {
        match line.to_lowercase().as_str() {
            "" => return Ok(Next::Prompt),
            "exit" | "quit" | "/quit" | "/exit" => return Ok(Next::Leave),
            _ => {}
        }
        let Some(command) = line.strip_prefix('/') else {
            for offer in named_folders::offers(line, self.handle.context.folders(), &self.paths) {
                self.screen
                    .note(&self.style.yellow(&format!("{offer}; `ml-intern -c` with it goes on here")))?;
            }
            return self.turn(Operation::UserInput { text: line.to_owned() }).await;
        };
        let (word, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        self.command(&word.to_lowercase(), argument.trim()).await
    }

    async fn command(&mut self, word: &str, argument: &str) -> Result<Next, Failure> {
        match word {
            "help" => {
                self.help()?;
                Ok(Next::Prompt)
            }
            "new" | "clear" => {
                if word == "clear" {
                    crossterm::execute!(
                        std::io::stdout(),
                        crossterm::terminal::Clear(crossterm::terminal::ClearType::All),
                        crossterm::cursor::MoveTo(0, 0)
                    )?;
                }
                self.turns = 0;
                self.turn(Operation::New { clear_screen: word == "clear" }).await
            }
            "undo" => self.turn(Operation::Undo).await,
            "compact" => self.turn(Operation::Compact).await,
            "model" if argument.is_empty() => {
                self.models()?;
                Ok(Next::Prompt)
            }
            "model" => self.turn(Operation::SetModel { model: argument.to_owned() }).await,
            "status" => {
                self.status()?;
                Ok(Next::Prompt)
            }
            other => {
                self.screen
                    .note(&format!("There is no command /{}; /help lists them.", on_one_line(other)))?;
                Ok(Next::Prompt)
            }
        }
    }

    fn help(&mut self) -> std::io::Result<()> {
        const ROWS: [(&str, &str); 8] = [
            ("/help", "this list"),
            ("/new", "start a new conversation"),
            ("/clear", "the same, with an empty screen"),
            ("/undo", "take back the last message and what followed it"),
            ("/compact", "summarise what came before, to make room"),
            ("/model [id]", "show the models, or switch to one"),
            ("/status", "what this session is"),
            ("/quit", "leave"),
        ];
        let width = ROWS.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
        for (command, text) in ROWS {
            self.screen.note(&format!(
                "  {}  {}",
                self.style.gold(&format!("{command:width$}")),
                self.style.dim(text)
            ))?;
        }
        self.screen.note(&self.style.dim("  Ctrl-C stops the turn; twice leaves. Ctrl-D leaves."))
    }

    fn models(&mut self) -> std::io::Result<()> {
        let current = self.handle.model.id().to_owned();
        self.screen.note(&format!("Model: {}", on_one_line(&current)))?;
        for (id, label) in self.handle.suggestions.clone() {
            let mark = if id == current { "▸" } else { " " };
            self.screen.note(&format!(
                "  {mark} {}  {}",
                on_one_line(&id),
                self.style.dim(&on_one_line(&label))
            ))?;
        }
        self.screen.note(&self.style.dim(
            "  or any <org>/<model>[:<provider>], ollama/NAME, llamacpp/NAME, vllm/NAME, lm_studio/NAME",
        ))
    }

    fn status(&mut self) -> std::io::Result<()> {
        let rows = [
            ("Session", self.handle.session.to_string()),
            (
                "Model",
                format!(
                    "{} ({}; paid by {})",
                    self.handle.model.id(),
                    self.handle.model.route(),
                    self.handle.model.payer()
                ),
            ),
            ("Tool runtime", "local filesystem".to_owned()),
            ("Workspace", self.handle.context.folders().workspace.display().to_string()),
            ("Wall", format!("{}, network {}", self.enclosure.wall(), self.enclosure.network())),
            ("Mode", self.mode.to_string()),
            ("Turns", self.turns.to_string()),
        ];
        for (name, value) in rows {
            self.screen.note(&format!("  {name:<13} {}", on_one_line(&value)))?;
        }
        Ok(())
    }

    /// Sends an operation and shows what comes of it until the prompt is due again.
    async fn turn(&mut self, operation: Operation) -> Result<Next, Failure> {
        self.sent += 1;
        let id = format!("sub_{}", self.sent);
        // In a turn it is one event among others.
        let compacts = operation == Operation::Compact;
        // A key that was pressed when the last turn was over already does not stop this one.
        self.handle.interrupt.reset();
        if self.handle.operations.send(Submission { id, operation }).await.is_err() {
            return Ok(Next::Leave);
        }
        let mut interrupted = signal(SignalKind::interrupt())?;
        loop {
            let event = tokio::select! {
                event = self.handle.events.recv() => event,
                _ = interrupted.recv() => {
                    self.handle.interrupt.interrupt();
                    self.screen.clear()?;
                    if self.pressed_again("ctrl + c again to quit")? == Next::Leave {
                        return Ok(Next::Leave);
                    }
                    continue;
                }
            };
            let Some(event) = event else {
                return Ok(Next::Leave);
            };
            self.screen.event(&event)?;
            match event {
                Event::ApprovalRequired { tools, .. } => self.approve(tools).await?,
                Event::TurnComplete { .. } | Event::Interrupted {} | Event::Error { .. } => {
                    self.turns += 1;
                    return Ok(Next::Prompt);
                }
                Event::ModelChanged { model, .. } => {
                    self.handle.refresh_model(&model);
                    return Ok(Next::Prompt);
                }
                Event::NewComplete { session_id, .. } => {
                    self.handle.session = SessionId::from(session_id);
                    return Ok(Next::Prompt);
                }
                Event::UndoComplete {} => return Ok(Next::Prompt),
                Event::Compacted { .. } if compacts => return Ok(Next::Prompt),
                Event::Shutdown { open_orders, .. } => {
                    self.left = Some(open_orders);
                    return Ok(Next::Leave);
                }
                _ => {}
            }
        }
    }

    async fn approve(&mut self, requests: Vec<protocol::ApprovalRequest>) -> Result<(), Failure> {
        self.screen.clear()?;
        let (style, editor) = (self.style, self.editor.clone());
        let decided =
            tokio::task::spawn_blocking(move || card::ask(&mut std::io::stdout(), &requests, style, &editor));
        match decided.await.map_err(anyhow::Error::from)?? {
            Decided::Answers(approvals) => {
                self.sent += 1;
                let id = format!("approval_{}", self.sent);
                // A session that ended meanwhile says so by its last event.
                let _ = self
                    .handle
                    .operations
                    .send(Submission { id, operation: Operation::ExecApproval { approvals } })
                    .await;
            }
            Decided::Interrupt => self.handle.interrupt.interrupt(),
        }
        Ok(())
    }

    async fn leave(mut self) -> Result<Exit, Failure> {
        self.handle.interrupt.interrupt();
        let shutdown = Submission { id: "sub_shutdown".to_owned(), operation: Operation::Shutdown };
        let _ = self.handle.operations.send(shutdown).await;
        let ended = async {
            let mut left = self.left.take();
            while let Some(event) = self.handle.events.recv().await {
                if let Event::Shutdown { open_orders, .. } = event {
                    left = Some(open_orders);
                }
            }
            let _ = self.handle.task.await;
            left
        };
        // The session is on disk; what still runs is not waited for longer.
        let left = tokio::time::timeout(Duration::from_secs(10), ended).await.ok().flatten();
        let session = &self.handle.session;
        let open = left.as_deref().unwrap_or_default();
        for order in open {
            let told = format!(
                "Whether {} arrived is unknown: look for it before you order it again.",
                on_one_line(order)
            );
            self.screen.note(&self.style.yellow(&told))?;
        }
        self.screen.note(&self.style.dim(&format!("Bye. Go on with: ml-intern --resume {session}")))?;
        Ok(if left.is_none() || !open.is_empty() { Exit::Failed } else { Exit::Done })
    }
}
