//! Switches at a time. **Invariant**: each is carried out once, also after a stop or a clock that jumped.

use model::Rejected;
use serde_json::{Value, json};

use crate::change::Schedule;
use crate::meters::wall_ms;
use crate::registry::{Registry, kept};
use crate::request::{Action, Request};

/// More would be forgotten anyway.
const SCHEDULES_MAX: usize = 10_000;

impl Registry {
    pub(crate) async fn schedule(&mut self, mut schedule: Schedule) -> Result<Value, Rejected> {
        let index = self.environment(Some(&schedule.environment).filter(|name| !name.is_empty()).map(String::as_str))?;
        schedule.environment = self.environments[index].config.name.clone();
        self.before(index, |before| before.living(&schedule.key).map(drop))?;
        if self.environments[index].config.second_person && schedule.on {
            let message = format!("{} asks for a second person, so nothing is switched on by the clock there", schedule.environment);
            return Err(Rejected::new("conflict", message).hint("switch it on yourself when it is time; off may be scheduled"));
        }
        if schedule.at_ms <= wall_ms() {
            return Err(Rejected::new("invalid", "this time is in the past").hint("such as --at 2026-12-01T09:00Z, or --in 2h"));
        }
        if self.schedules.len() >= SCHEDULES_MAX {
            return Err(Rejected::new("conflict", format!("{SCHEDULES_MAX} schedules wait already")));
        }
        schedule.number = self.next_number();
        if let Err(error) = self.commit(vec![(schedule_key(schedule.number), kept(&schedule))], Vec::new()).await {
            self.owe_back([(schedule_key(schedule.number), None)]);
            return Err(error);
        }
        let number = schedule.number;
        self.tell("flag_scheduled", format!("{}: {} {}", schedule.who, schedule.key, if schedule.on { "on" } else { "off" }));
        self.schedules.insert(number, schedule);
        Ok(json!({ "schedule": number }))
    }

    pub(crate) async fn unschedule(&mut self, number: u64, who: &str) -> Result<Value, Rejected> {
        if !self.schedules.contains_key(&number) {
            return Err(Rejected::new("not_found", format!("there is no schedule {number}")).hint("see `changeover flags schedules`"));
        }
        if let Err(error) = self.commit(Vec::new(), vec![schedule_key(number)]).await {
            self.owe_back([(schedule_key(number), Some(kept(&self.schedules[&number])))]);
            return Err(error);
        }
        self.schedules.remove(&number);
        self.tell("flag_unscheduled", format!("{who}: schedule {number}"));
        Ok(Value::Null)
    }

    /// What is due, in the order of their times; each exactly once, also after a stop or a clock that jumped.
    pub(crate) async fn look_at_schedules(&mut self) {
        let now_ms = wall_ms();
        let mut due: Vec<Schedule> = self.schedules.values().filter(|it| it.at_ms <= now_ms).cloned().collect();
        due.sort_by_key(|it| (it.at_ms, it.number));
        // What the disk refuses is tried again, and holds up nothing that comes after it.
        let mut held: Vec<Schedule> = Vec::new();
        for schedule in due {
            let _urgent = (!schedule.on).then(|| self.store.urgent());
            let key = schedule.key.clone();
            let action = if schedule.on { Action::On { key } } else { Action::Off { key } };
            let why = schedule.why.clone().unwrap_or_else(|| format!("schedule {}", schedule.number));
            let (who, environment) = (schedule.who.clone(), Some(schedule.environment.clone()));
            // Switching twice is switching once, so a crash between the two commits does no harm.
            match self.write(Request { who, why: Some(why), environment, bound_to: None, action }, None).await {
                Err(error) if error.code == "unavailable" => {
                    held.push(schedule);
                    continue;
                }
                Err(error) => self.tell("flag_schedule_failed", format!("schedule {}: {}", schedule.number, error.message)),
                Ok(_) => {}
            }
            // Carried out once, also while the disk refuses. What came before it is over.
            let is_over = |it: &mut Schedule| it.key == schedule.key && it.environment == schedule.environment;
            let over: Vec<u64> = held.extract_if(.., is_over).map(|it| it.number).chain([schedule.number]).collect();
            let rows: Vec<String> = over.iter().map(|number| schedule_key(*number)).collect();
            if self.commit(Vec::new(), rows.clone()).await.is_err() {
                self.owe(rows.into_iter().map(|row| (row, None)));
            }
            over.iter().for_each(|number| drop(self.schedules.remove(number)));
        }
    }
}

fn schedule_key(number: u64) -> String {
    format!("flagschedule/{number:012}")
}
