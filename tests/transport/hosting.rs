//! What the service asks this machine: execs served by a handler, questions answered, messages said
//! into the turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentwire::exec::{Ask, ExecCall, ExecHandler, Served, ShellSink};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::proto::agent_server_message::Message as FromServer;
use agentwire::proto::conversation_action::Action;
use agentwire::proto::exec_client_message::Message as Reply;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::interaction_response::Result as Response;
use agentwire::proto::{
    ExecServerControlMessage, ExecServerMessage, InteractionQuery, LsArgs, LsResult, ReadArgs,
    ReadResult, ShellArgs, ShellStreamExit, ShellStreamStdout, WebSearchRequestQuery,
    WebSearchRequestResponse, exec_server_control_message, shell_stream,
};
use agentwire::run::Event;
use agentwire::transport::Client;

use super::peer::{Call, Peer, until};

/// Lists, prints, panics at reads, and sleeps for ever in greps.
#[derive(Default)]
struct Handler {
    asleep: Arc<AtomicUsize>,
}

struct Asleep(Arc<AtomicUsize>);

impl Drop for Asleep {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ExecHandler for Handler {
    fn ls<'a>(&'a self, _: &'a ExecCall, _: LsArgs) -> Served<'a, LsResult> {
        Box::pin(async { Ok(LsResult::default()) })
    }

    fn read<'a>(&'a self, _: &'a ExecCall, _: ReadArgs) -> Served<'a, ReadResult> {
        Box::pin(async { panic!("a handler's own mistake") })
    }

    fn shell<'a>(
        &'a self,
        _: &'a ExecCall,
        _: ShellArgs,
    ) -> Served<'a, agentwire::proto::ShellResult> {
        self.asleep.fetch_add(1, Ordering::SeqCst);
        let asleep = Asleep(Arc::clone(&self.asleep));
        Box::pin(async move {
            let _asleep = asleep;
            std::future::pending().await
        })
    }

    fn shell_stream<'a>(
        &'a self,
        _: &'a ExecCall,
        _: ShellArgs,
        sink: &'a mut dyn ShellSink,
    ) -> Served<'a, ()> {
        Box::pin(async move {
            for line in 0..100 {
                let data = format!("{line}\n");
                let out = ShellStreamStdout { data };
                sink.send(shell_stream::Event::Stdout(out)).await;
            }
            sink.send(shell_stream::Event::Exit(ShellStreamExit::default())).await;
            Ok(())
        })
    }
}

struct Yes;

impl Ask for Yes {
    fn web_search(&self, _: WebSearchRequestQuery) -> Served<'_, WebSearchRequestResponse> {
        Box::pin(async { Ok(WebSearchRequestResponse::default()) })
    }
}

fn exec(id: u32, case: Case) -> FromServer {
    let exec = ExecServerMessage { id, message: Some(case), ..ExecServerMessage::default() };
    FromServer::ExecServerMessage(Box::new(exec))
}

async fn reply(call: &mut Call) -> Reply {
    loop {
        match call.next().await {
            Some(FromClient::ExecClientMessage(reply)) => return reply.message.unwrap(),
            Some(_) => {}
            None => panic!("an answer was awaited"),
        }
    }
}

#[tokio::test]
async fn execs_are_served_side_by_side_and_stopped_when_nobody_waits() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.say(exec(1, Case::ShellArgs(Box::default()))).await;
        call.say(exec(2, Case::LsArgs(Box::default()))).await;
        assert!(matches!(reply(&mut call).await, Reply::LsResult(_)), "beside the one that sleeps");
        call.say(exec(3, Case::ReadArgs(Box::default()))).await;
        assert!(matches!(reply(&mut call).await, Reply::ReadResult(_)), "a typed failure");
        call.say(exec(4, Case::ShellStreamArgs(Box::default()))).await;
        let mut lines = 0;
        loop {
            let Reply::ShellStream(stream) = reply(&mut call).await else { panic!("a shell") };
            match stream.event.unwrap() {
                shell_stream::Event::Stdout(out) => {
                    assert_eq!(out.data, format!("{lines}\n"));
                    lines += 1;
                }
                shell_stream::Event::Exit(_) => break,
                _ => {}
            }
        }
        assert_eq!(lines, 100);
        let abort =
            exec_server_control_message::Message::Abort(agentwire::proto::ExecServerAbort {
                id: 1,
            });
        let abort = ExecServerControlMessage { message: Some(abort) };
        call.say(FromServer::ExecServerControlMessage(abort)).await;
        call.say(exec(5, Case::ShellArgs(Box::default()))).await;
        call.text("served").await;
        call.linger().await;
    })
    .await;
    let handler = Handler::default();
    let asleep = Arc::clone(&handler.asleep);
    let client = Client::builder().endpoint(peer.url()).build().unwrap();
    let mut run = client.prompt("x").model("m").execs(Arc::new(handler)).start().await.unwrap();
    let wait = async {
        while let Some(event) = run.next().await {
            match event {
                Event::Text(_) => return,
                Event::Ended(ended) => panic!("{ended:?}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    until("the aborted one is gone, the other at work", || asleep.load(Ordering::SeqCst) == 1)
        .await;
    drop(run);
    until("the other ended with the run", || asleep.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn questions_are_answered_and_messages_said_into_the_turn() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        let query = Query::WebSearchRequestQuery(Box::default());
        let query = InteractionQuery { id: 7, query: Some(query) };
        call.say(FromServer::InteractionQuery(Box::new(query))).await;
        let Some(FromClient::InteractionResponse(response)) = call.next().await else {
            panic!("an answer was awaited")
        };
        assert_eq!(response.id, 7);
        assert!(matches!(response.result, Some(Response::WebSearchRequestResponse(_))));
        call.text("go on").await;
        let Some(FromClient::ConversationAction(action)) = call.next().await else {
            panic!("a message was awaited")
        };
        let Some(Action::UserMessageAction(said)) = action.action else { panic!("a message") };
        call.text(&said.user_message.unwrap().text).await;
        call.turn_ended().await;
        call.end("{}").await;
        call.linger().await;
    })
    .await;
    let client = Client::builder().endpoint(peer.url()).build().unwrap();
    let mut run = client.prompt("x").model("m").asker(Arc::new(Yes)).start().await.unwrap();
    let mut texts = Vec::new();
    while let Some(event) = run.next().await {
        match event {
            Event::Text(text) => {
                if texts.is_empty() {
                    run.say("and quickly").await.unwrap();
                }
                texts.push(text);
            }
            Event::Ended(ended) => assert!(ended.is_ok(), "{ended:?}"),
            _ => {}
        }
    }
    assert_eq!(texts, ["go on", "and quickly"]);
    assert!(run.say("too late").await.is_err());
}
