//! The conditions of a profile, compiled so that they can be evaluated for requests.

use crate::extract::field::Extracted;
use crate::extract::field::ExtractionPlan;
use crate::extract::field::Field;
use crate::extract::template::Context;
use crate::extract::template::Template;
use crate::http::inbound::Inbound;
use crate::profile;

/// A statement about one place of a request.
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
    /// Compiles a condition, and asks for the fields that it reads.
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

    /// Whether it holds. What is compared may be a secret: it takes the same time wherever the two differ.
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
                let found = self.field.text(inbound, values).ok().flatten();
                let expected = template.fill(inbound, values, None).ok();
                found.zip(expected).is_some_and(|(found, expected)| {
                    let expected = expected.whole();
                    aws_lc_rs::constant_time::verify_slices_are_equal(found.as_bytes(), &expected).is_ok()
                })
            }
        }
    }

    /// Whether headers alone decide it.
    pub fn is_of_headers(&self) -> bool {
        let fixed = if let Test::Equals(template) = &self.test { template.is_fixed() } else { true };
        fixed && self.field.is_header()
    }

    /// The text that would make it hold, where only one does.
    pub fn expected(&self, inbound: &Inbound, values: &Extracted) -> Option<String> {
        let Test::Equals(template) = &self.test else { return None };
        String::from_utf8(template.fill(inbound, values, None).ok()?.whole().into_owned()).ok()
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
