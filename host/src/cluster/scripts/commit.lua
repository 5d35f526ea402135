-- Commits a batch of events, if the partition is still the owner's and all batches before are here.
-- KEYS: the partition, its waiting events, then the stream of each node that gets something.
-- ARGV: epoch, the owner's number, number of the batch; how many arguments of the fields to set, of the fields to delete, of the
-- waiting events that are done with; those; and for each stream: the field of its last id, the channel, the head of the
-- message, the id as text, the id in bytes, the message.
local mine, me, number = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
--VERDICT
if last >= number then
  return {'done'}
end
if last < number - 1 then
  return {'lost'}
end
--HELPERS
each(tonumber(ARGV[4]), 'HSET', KEYS[1])
each(tonumber(ARGV[5]), 'HDEL', KEYS[1])
each(tonumber(ARGV[6]), 'HDEL', KEYS[2])
send()
return {'done'}
