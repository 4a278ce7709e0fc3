//! Where managed attach meets the rest of the broker: requests in, answers and frames out.

use crate::attach::wire::AttachRequest;
use crate::broker::cx::Cx;
use crate::broker::facts::Notice;
use crate::broker::links::Links;
use crate::id::ConnId;

impl Links {
    /// A guest says something of managed attach. What a session without a row says
    /// of itself counts for nothing.
    pub(crate) fn on_attach(&self, cx: &mut Cx, conn: ConnId, request: AttachRequest) {
        let session = self.table.get(conn).and_then(|link| link.session.as_ref());
        let Some(session) = session.filter(|session| !session.is_legacy()) else { return };
        if let Some(row) = session.row {
            cx.notify(Notice::Attach { conn, row, request: request.into() });
        }
    }
}
