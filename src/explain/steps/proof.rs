//! The steps of checking a proof: its location, the signed bytes, the computed digest, and the comparison. (`impl Walk`
//! here, because `mod.rs` would be too long.)

use super::CONTINUE;
use super::Flow;
use super::Kind;
use super::Walk;
use crate::explain::token;
use crate::explain::wording::bytes;
use crate::explain::wording::cut;
use crate::explain::wording::duration;
use crate::explain::wording::proof;
use crate::explain::wording::secret;
use crate::explain::wording::signed;
use crate::extract::field::Extracted;
use crate::extract::field::Field;
use crate::profile;
use crate::profile::Combination;
use crate::profile::ContentEncoding;
use crate::verify::Failure;
use crate::verify::Member;
use crate::verify::Scheme;

impl Walk<'_> {
    /// Describes where a member's proof has to be, and whether it is there.
    pub(super) fn proof(&mut self, member: &Member, several: bool, values: &Extracted) -> Flow {
        let profile = &self.case.profile;
        let Some(spec) = profile.auth.members.get(member.position) else { return CONTINUE };
        let role = match profile.auth.combination {
            Combination::First if several => ", which decides about this request",
            Combination::All if several => ", of several that all have to hold",
            Combination::First | Combination::All => "",
        };
        self.note(Kind::LookedFor, format!("{}{role}", proof(&spec.scheme)));
        let is_there = member.scheme.field().is_present(self.inbound, values);
        if is_there { CONTINUE } else { self.fail(Kind::Found, "nothing: it is not there") }
    }

    /// Describes the time. Returns its text.
    pub(super) fn time(&mut self, spec: &profile::Timestamp, text: Option<&str>) -> Option<String> {
        self.note(Kind::LookedFor, format!("the time in {}, {}", spec.from, spec.format.describe()));
        let found = match text.and_then(|text| Some((text, spec.format.parse(text)?))) {
            Some((text, moment)) => {
                let age = self.case.at.seconds_since(moment);
                let age = match age {
                    0.. => format!("{} old", duration(age)),
                    _ => format!("{} ahead", duration(age.saturating_neg())),
                };
                format!("{text}, which is {}: {age}", moment.rfc3339())
            }
            None => "none that could be read, which does not matter here".to_owned(),
        };
        self.note(Kind::Found, found);
        text.map(str::to_owned)
    }

    pub(super) fn no_time(
        &mut self,
        spec: &profile::Timestamp,
        field: &Field,
        values: &Extracted,
        failure: &Failure,
    ) -> Flow {
        self.note(Kind::LookedFor, format!("the time in {}, {}", spec.from, spec.format.describe()));
        let text = field.text(self.inbound, values).ok().flatten();
        let text = text.filter(|text| text.len() <= 64).map(|text| format!(": {text:?}")).unwrap_or_default();
        self.fail(Kind::Found, format!("{failure}{text}"))
    }

    /// Describes how a member's proof is verified.
    pub(super) async fn check_proof(&mut self, member: &Member, values: &Extracted, time: Option<&str>) -> Flow {
        let Some(spec) = self.case.profile.auth.members.get(member.position) else { return CONTINUE };
        match (&member.scheme, &spec.scheme) {
            (Scheme::Signature(ready), profile::Scheme::Signature(spec)) => {
                let texts = ready.field().texts(self.inbound, values).ok().flatten().into_iter().flatten();
                let prefix = spec.location.prefix.clone();
                let texts: Vec<_> = texts.map(|text| cut(text, &prefix)).collect();
                let found = if texts.is_empty() { "no such entry".to_owned() } else { texts.join(", ") };
                self.note(Kind::Found, found);
                let verified = ready.verify(self.inbound, values, time, self.case.at).await;
                for (filled, spec) in ready.signed(self.inbound, values, time).zip(&spec.signed) {
                    let Ok(filled) = filled else { continue };
                    let form = self.signed_form(spec, verified.is_ok());
                    self.note(Kind::Signed, format!("{}{form}", signed(spec, &filled)));
                    for (at, digest) in ready.computed(&filled) {
                        let digest = cut(&digest, &prefix);
                        self.note(Kind::Computed, format!("{digest} with {}", secret(at)));
                    }
                }
                match verified {
                    Ok(proven) => self.equal(proven.secret),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            (Scheme::Token(ready), _) => {
                let texts = ready.field().texts(self.inbound, values).ok().flatten().into_iter().flatten();
                let texts: Vec<_> = texts.map(|text| format!("a text of {}", bytes(text.len()))).collect();
                self.note(Kind::Found, texts.join(", "));
                match ready.verify(self.inbound, values) {
                    Ok(at) => self.equal(Some(at)),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            (Scheme::Jwt(ready), profile::Scheme::Jwt(spec)) => {
                let text = ready.field().text(self.inbound, values).ok().flatten();
                let prefix = spec.from.as_ref().map(|from| from.prefix.as_str());
                let found = text.map_or_else(Vec::new, |text| token::described(text, prefix, spec, self.case));
                found.into_iter().for_each(|found| self.note(Kind::Found, found));
                match ready.verify(self.inbound, values, self.case.at).await {
                    Ok(proven) => self.equal(proven.secret),
                    Err(failure) => self.fail(Kind::Compared, failure.to_string()),
                }
            }
            _ => CONTINUE,
        }
    }

    fn equal(&mut self, at: Option<usize>) -> Flow {
        let whose = at.map_or_else(|| "the key that was fetched".to_owned(), secret);
        self.note(Kind::Compared, format!("it is right, by {whose}"));
        CONTINUE
    }

    /// Says which form of a compressed body was signed.
    fn signed_form(&self, spec: &profile::Template, is_right: bool) -> &'static str {
        let body = spec.walk().any(|piece| *piece == profile::Piece::Body) && self.inbound.is_compressed();
        match (body, self.inbound.signed_as(), is_right) {
            (false, ..) => "",
            (true, ContentEncoding::SignedPlain, true) => {
                ", before compression, because the signature is right over these"
            }
            (true, ContentEncoding::SignedPlain, false) => ", before compression",
            (true, ContentEncoding::SignedAsSent, true) => ", as sent, because the signature is right over these",
            (true, ContentEncoding::SignedAsSent, false) => ", as sent",
        }
    }
}
