//! AWS SNS as its subscribers see it: signed messages, a certificate to verify them with, an address to visit.

use doorward::base::time::Moment;
use serde_json::Value;
use serde_json::json;

use crate::harness::gateway::Gateway;
use crate::harness::gateway::one_source::start_shipped;
use crate::harness::http::Message;
use crate::harness::provider::delivery::Delivery;
use crate::harness::provider::delivery::request;
use crate::harness::provider::signing;
use crate::harness::recorded;
use crate::harness::upstream::Reply;
use crate::harness::upstream::Upstream;

const TOPIC: &str = "arn:aws:sns:us-west-2:123456789012:MyTopic";
/// Where the certificate of the recorded deliveries lies, which is for the key `rsa-a`.
pub const CERTIFICATE: &str = "/SimpleNotificationService-f3ecfb7224c7233fe7bb5f59f96de52f.pem";

/// A server with the certificate.
pub struct Sns(pub Upstream);

impl Sns {
    /// Answers everything else as told.
    pub fn answering(otherwise: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(move |request| {
            let asked = request.start.starts_with(&format!("GET {CERTIFICATE} "));
            if asked { certificate() } else { otherwise(request) }
        })
    }

    /// Answers everything as told.
    pub fn with(behave: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        Self(Upstream::with(move |_, request| behave(request)))
    }

    /// A gateway that takes its messages.
    pub fn gateway(&self) -> (Gateway, Upstream) {
        start_shipped("aws-sns", &Self::lines(&self.0.address().to_string()))
    }

    /// What a source says that takes certificates from these hosts.
    pub fn lines(hosts: &str) -> String {
        format!("params = {{ topic_arn = \"{TOPIC}\", certificate_hosts = \"{hosts}\" }}")
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        let path = |message: Message| message.start.split(' ').nth(1).unwrap_or_default().to_owned();
        self.0.received().into_iter().map(path).collect()
    }

    /// A message to the topic that names this certificate.
    pub fn notification(&self, id: &str, certificate: &str) -> Delivery {
        let names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"];
        let message = json!({ "Type": "Notification", "MessageId": id, "Message": "Hello" });
        post(&self.signed(message, &names, certificate))
    }

    /// What a new endpoint is sent, with this address to visit.
    pub fn confirmation(&self, address: &str) -> Delivery {
        let names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
        let message = json!({
            "Type": "SubscriptionConfirmation",
            "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
            "Token": "2336412f37f",
            "Message": "You have chosen to subscribe to the topic.",
            "SubscribeURL": address,
        });
        post(&self.signed(message, &names, CERTIFICATE))
    }

    fn signed(&self, mut message: Value, names: &[&str], certificate: &str) -> Value {
        message["TopicArn"] = json!(TOPIC);
        message["Timestamp"] = json!(Moment::now().rfc3339().to_string());
        message["SignatureVersion"] = json!("2");
        message["SigningCertURL"] = json!(format!("http://{}{certificate}", self.0.address()));
        let text = |name: &&str| format!("{name}\n{}\n", message[*name].as_str().expect("text"));
        let signed: String = names.iter().map(text).collect();
        let signature = signing::rsa_signature(&signing::rsa("rsa-a"), signed.as_bytes());
        message["Signature"] = json!(signing::base64(signature));
        message
    }
}

fn post(message: &Value) -> Delivery {
    request("POST", "/aws-sns", &[("Content-Type", "text/plain; charset=UTF-8")], message.to_string())
}

/// The certificate as a server sends it.
pub fn certificate() -> Reply {
    let recorded = recorded::delivery("aws-sns", "accepted-notification");
    let text = recorded["files"][CERTIFICATE].as_str().expect("a certificate");
    Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes())
}
