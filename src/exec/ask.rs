//! The table of queries: what the service asks a person, and the method that answers.

use crate::proto;
use crate::proto::interaction_query::Query;
use crate::proto::interaction_response::Result as Response;

use super::{Served, not_served};

macro_rules! ask_table {
    ($($(#[$doc:meta])* $method:ident: $case:ident($query:ident) -> $result:ident($response:ident);)*) => {
        /// Answers the service's questions to a person: permissions, choices, plans, modes.
        ///
        /// One method for each case of the protocol; each refuses by default, and the service is
        /// told so in the case's own typed way. Object-safe: `Arc<dyn Ask>` is what a run takes.
        pub trait Ask: Send + Sync {
            /// Whether this case is offered to the methods at all. One that is not is refused at
            /// once. True by default: the methods decide.
            fn answers(&self, query: &Query) -> bool {
                let _ = query;
                true
            }

            $(
                $(#[$doc])*
                fn $method<'a>(&'a self, query: proto::$query) -> Served<'a, proto::$response> {
                    let _ = query;
                    not_served()
                }
            )*
        }

        /// Asks `asker` and gives the answer in the form that goes back.
        pub fn put<'a>(asker: &'a dyn Ask, query: Query) -> Served<'a, Response> {
            match query {
                $(Query::$case(query) => {
                    let served = asker.$method(*query);
                    Box::pin(async move {
                        served.await.map(|response| Response::$result(Box::new(response)))
                    })
                })*
            }
        }
    };
}

ask_table! {
    /// `web_search_request_query`: may the web be searched for this?
    web_search: WebSearchRequestQuery(WebSearchRequestQuery) -> WebSearchRequestResponse(WebSearchRequestResponse);
    /// `ask_question_interaction_query`: questions with choices.
    question: AskQuestionInteractionQuery(AskQuestionInteractionQuery) -> AskQuestionInteractionResponse(AskQuestionInteractionResponse);
    /// `switch_mode_request_query`: may the agent change its mode?
    switch_mode: SwitchModeRequestQuery(SwitchModeRequestQuery) -> SwitchModeRequestResponse(SwitchModeRequestResponse);
    /// `exa_search_request_query`: may this search service be asked?
    exa_search: ExaSearchRequestQuery(ExaSearchRequestQuery) -> ExaSearchRequestResponse(ExaSearchRequestResponse);
    /// `exa_fetch_request_query`: may this service fetch pages?
    exa_fetch: ExaFetchRequestQuery(ExaFetchRequestQuery) -> ExaFetchRequestResponse(ExaFetchRequestResponse);
    /// `create_plan_request_query`: a plan to be shown and kept.
    create_plan: CreatePlanRequestQuery(CreatePlanRequestQuery) -> CreatePlanRequestResponse(CreatePlanRequestResponse);
    /// `setup_vm_environment_args`: set up a machine. Its result knows success only.
    setup_vm_environment: SetupVmEnvironmentArgs(SetupVmEnvironmentArgs) -> SetupVmEnvironmentResult(SetupVmEnvironmentResult);
}
