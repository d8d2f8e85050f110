// Goes on to the page, and leaves the link's token out of the history.
location.replace("/");
