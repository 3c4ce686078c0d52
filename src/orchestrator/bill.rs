//! What a task has used, and by whose account: the gateway's own, read from what its model answered, where it
//! reaches its model through the gateway; else the agent's.

use serde::{Deserialize, Serialize};

use crate::domain::Usage;
use crate::proxy::Metered;

/// What one task has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Bill {
    /// By the agent's account.
    told: Usage,
    /// Whether the agent knew what all of it cost.
    cost_known: bool,
    /// By the gateway's.
    #[serde(skip_serializing_if = "Option::is_none")]
    metered: Option<Usage>,
    /// Whether there was a price for all of that.
    priced: bool,
}

impl Default for Bill {
    fn default() -> Self {
        Self { told: Usage::default(), cost_known: true, metered: None, priced: true }
    }
}

impl Bill {
    /// The agent says what it has used.
    pub(super) fn tell(&mut self, usage: Usage, cost_known: bool) {
        self.told += usage;
        self.cost_known &= cost_known;
    }

    /// A model has answered.
    pub(super) fn meter(&mut self, call: &Metered) {
        let input_tokens = [call.input_tokens, call.cache_read_tokens, call.cache_write_tokens];
        let usage = Usage {
            input_tokens: input_tokens.iter().fold(0, |sum, tokens| sum.saturating_add(*tokens)),
            output_tokens: call.output_tokens,
            cost_usd: call.cost_usd.unwrap_or(0.0),
        };
        *self.metered.get_or_insert_default() += usage;
        self.priced &= call.cost_usd.is_some();
    }

    /// The whole. Tokens that were metered are right; without a price the agent may still know the cost.
    pub(super) fn usage(&self) -> Usage {
        match self.metered {
            Some(metered) if self.priced => metered,
            Some(metered) => Usage { cost_usd: self.told.cost_usd, ..metered },
            None => self.told,
        }
    }

    /// What has been spent at least, in US dollars: what a budget is held against. A call without a price hides
    /// nothing of what the others cost.
    pub(super) fn spent(&self) -> f64 {
        self.metered.map_or(0.0, |metered| metered.cost_usd).max(self.told.cost_usd)
    }

    /// Whether the cost in it is true.
    pub(super) fn cost_known(&self) -> bool {
        (self.metered.is_some() && self.priced) || self.cost_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(cost_usd: Option<f64>) -> Metered {
        let model = "model".to_owned();
        Metered { model, input_tokens: 5, output_tokens: 7, cache_read_tokens: 10, cache_write_tokens: 20, cost_usd }
    }

    fn told(cost_usd: f64) -> Usage {
        Usage { input_tokens: 1, output_tokens: 1, cost_usd }
    }

    #[test]
    fn what_was_metered_goes_before_what_the_agent_says() {
        let mut bill = Bill::default();
        bill.tell(told(9.0), true);
        assert_eq!((bill.usage(), bill.cost_known()), (told(9.0), true));
        bill.meter(&call(Some(0.25)));
        bill.meter(&call(Some(0.25)));
        let whole = Usage { input_tokens: 70, output_tokens: 14, cost_usd: 0.5 };
        assert_eq!((bill.usage(), bill.cost_known()), (whole, true));
    }

    #[test]
    fn without_a_price_the_agents_word_counts_if_it_gives_one() {
        let mut bill = Bill::default();
        bill.meter(&call(Some(0.25)));
        bill.meter(&call(None));
        bill.tell(told(9.0), true);
        let whole = Usage { input_tokens: 70, output_tokens: 14, cost_usd: 9.0 };
        assert_eq!((bill.usage(), bill.cost_known()), (whole, true));
        bill.tell(told(0.0), false);
        assert!(!bill.cost_known());
    }

    #[test]
    fn ten_calls_of_a_fifth_cost_two() {
        let mut bill = Bill::default();
        for _ in 0..10 {
            bill.meter(&call(Some(0.2)));
        }
        assert!(bill.spent() >= 2.0, "{}", bill.spent());
        bill.meter(&call(Some(0.2)));
        assert_eq!(serde_json::to_string(&bill.usage().cost_usd).unwrap(), "2.2");
    }

    #[test]
    fn a_bill_is_taken_up_again_as_it_was() {
        let mut bill = Bill::default();
        bill.tell(told(1.0), false);
        bill.meter(&call(None));
        let json = serde_json::to_string(&bill).unwrap();
        assert_eq!(serde_json::from_str::<Bill>(&json).unwrap(), bill);
        assert_eq!(serde_json::from_str::<Bill>("{}").unwrap(), Bill::default());
    }
}
