//! The conditions of a profile, compiled for evaluation on requests.

use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::template::Context;
use crate::extract::template::Template;
use crate::http::inbound::Inbound;
use crate::profile;

/// A condition on one value of a request.
#[derive(Debug, Clone)]
pub struct Condition {
    field: Field,
    test: Test,
    optional: bool,
}

#[derive(Debug, Clone)]
enum Test {
    Equals(Template),
    Present,
    Absent,
    Length(usize, usize),
    Without(String),
}

impl Condition {
    /// Compiles a condition, and adds the fields that it reads to the plan.
    pub fn new(spec: &profile::Condition, context: Context<'_>, plan: &mut ExtractionPlan) -> Self {
        let test = match &spec.test {
            profile::Test::Equals(template) => Test::Equals(Template::new(template, context, plan)),
            profile::Test::Present => Test::Present,
            profile::Test::Absent => Test::Absent,
            profile::Test::Length(min, max) => Test::Length(*min, *max),
            profile::Test::Without(characters) => Test::Without(characters.clone()),
        };
        Self { field: Field::new(&spec.location, plan), test, optional: spec.optional }
    }

    /// Compiles several conditions.
    pub fn all(spec: &[profile::Condition], context: Context<'_>, plan: &mut ExtractionPlan) -> Vec<Self> {
        spec.iter().map(|spec| Self::new(spec, context, plan)).collect()
    }

    /// Whether it holds. Texts are compared in constant time, because they may be secrets.
    pub fn holds(&self, inbound: &Inbound, values: &Extracted) -> bool {
        if self.optional && matches!(self.field.text(inbound, values), Ok(None)) {
            return true;
        }
        match &self.test {
            Test::Present => self.field.has_entry(inbound, values),
            Test::Absent => self.field.is_absent(inbound, values),
            Test::Length(min, max) => {
                let text = self.field.text(inbound, values).ok().flatten();
                text.is_some_and(|text| (*min..=*max).contains(&text.len()))
            }
            Test::Without(characters) => {
                let text = self.field.text(inbound, values).ok().flatten();
                text.is_some_and(|text| !text.contains(|character| characters.contains(character)))
            }
            Test::Equals(template) => {
                let text = self.field.text(inbound, values).ok().flatten();
                let expected = template.fill(inbound, values, None).ok();
                text.zip(expected).is_some_and(|(text, expected)| {
                    let expected = expected.concat();
                    aws_lc_rs::constant_time::verify_slices_are_equal(text.as_bytes(), &expected).is_ok()
                })
            }
        }
    }

    /// Whether it depends only on headers.
    pub fn reads_only_headers(&self) -> bool {
        let fixed = if let Test::Equals(template) = &self.test { template.is_fixed() } else { true };
        fixed && self.field.is_header()
    }

    /// The expected text of an `equals` condition; `None` for others, or if it cannot be computed.
    pub fn expected(&self, inbound: &Inbound, values: &Extracted) -> Option<String> {
        let Test::Equals(template) = &self.test else { return None };
        String::from_utf8(template.fill(inbound, values, None).ok()?.concat().into_owned()).ok()
    }

    /// The field that it tests.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The fields that it reads.
    pub fn fields(&self) -> Vec<&Field> {
        let mut fields = vec![&self.field];
        if let Test::Equals(template) = &self.test {
            fields.extend(template.fields());
        }
        fields
    }
}
